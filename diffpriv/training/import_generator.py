"""Import of the generator: the wheel `random-face` from the package index -> `generator/` of a model folder.

    python -m diffpriv.training.import_generator OUT [--wheel FILE]

The wheel (Apache-2.0, Belousov 2021) carries both networks as OpenVINO IR: an XML of layers and a file of their constants. pip
fetches it without its dependencies; its SHA-256 is checked before anything of it is read. Only constants are read: the
networks' shape is that of `diffpriv.generator`, and a test compares its pictures with OpenVINO's.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from torch import nn

from diffpriv.errors import ModelError
from diffpriv.generator.mapping import MappingNetwork
from diffpriv.generator.synthesis import ModulatedConvolution, SynthesisNetwork

PACKAGE = "random-face==2021.7.21.1"
SHA256 = "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5"
MEAN_DRAWS = 65536


class IntermediateRepresentation:
    """Constants of an OpenVINO IR, and which layers feed which.

    Args:
        xml, weights: contents of the two files.
    """

    def __init__(self, xml: bytes, weights: bytes) -> None:
        root = ElementTree.fromstring(xml)
        self._layers = {layer.get("id", ""): layer for layer in root.iter("layer")}
        self._weights = weights
        self._sources: dict[str, list[str]] = {}
        for edge in sorted(root.iter("edge"), key=lambda one: int(one.get("to-port", 0))):
            self._sources.setdefault(edge.get("to-layer", ""), []).append(edge.get("from-layer", ""))

    def of_type(self, kind: str) -> list[str]:
        """Layers of a type, in the order of the file."""
        return [name for name, layer in self._layers.items() if layer.get("type") == kind]

    def named(self, name: str) -> torch.Tensor:
        """The constant of this name."""
        return next(self._constant(layer) for layer in self._layers.values() if layer.get("name") == name)

    def constants_of(self, layer: str) -> list[torch.Tensor]:
        """Float constants among a layer's inputs, reshaped ones too."""
        return [tensor for source in self._sources.get(layer, []) for tensor in self._through(source)]

    def users(self, layer: str, kind: str) -> list[str]:
        """Layers of a type that take this one's result."""
        users = (name for name, sources in self._sources.items() if layer in sources)
        return [name for name in users if self._layers[name].get("type") == kind]

    def user(self, layer: str, kind: str) -> str:
        """The only such layer."""
        (only,) = self.users(layer, kind)
        return only

    def layer_named(self, name: str) -> str:
        return next(key for key, layer in self._layers.items() if layer.get("name") == name)

    def _through(self, name: str) -> Iterator[torch.Tensor]:
        layer = self._layers[name]
        if layer.get("type") in ("Reshape", "Unsqueeze"):
            yield from self._through(self._sources[name][0])
        elif layer.get("type") == "Const" and layer.find("data").get("element_type") == "f32":  # type: ignore[union-attr]
            yield self._constant(layer)

    def _constant(self, layer: ElementTree.Element) -> torch.Tensor:
        data = layer.find("data")
        start, size = int(data.get("offset")), int(data.get("size"))  # type: ignore[union-attr,arg-type]
        shape = [int(number) for number in str(data.get("shape")).split(",") if number.strip()]  # type: ignore[union-attr]
        numbers = np.frombuffer(self._weights[start : start + size], "<f4").reshape(shape)
        return torch.from_numpy(numbers.copy())


def convert_mapping(ir: IntermediateRepresentation) -> MappingNetwork:
    """Weights as they are; each layer's output scale (a constant after its rectifier) goes into the next rectified layer.

    A leaky rectifier is positively homogeneous, so a positive scale behind it can stand before it.
    """
    network = MappingNetwork(depth=len(ir.of_type("MatMul")))
    for layer, product in zip(network.layers, ir.of_type("MatMul"), strict=True):
        (weight,) = ir.constants_of(product)
        add = ir.user(product, "Add")
        (bias,) = ir.constants_of(add)
        scales = [ir.constants_of(user)[0] for user in ir.users(ir.user(add, "PReLU"), "Multiply")]
        scale = float(scales[0].flatten()[0]) if scales else 1.0
        layer.weight.data, layer.bias.data = weight * scale, bias.flatten() * scale
    normal = torch.randn(MEAN_DRAWS, network.config["dim"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.mean.copy_(network(normal).mean(0))
    return network


def convert_synthesis(ir: IntermediateRepresentation) -> SynthesisNetwork:
    """Constants that only scale a modulation go into its weights."""
    network = SynthesisNetwork()

    def modulation(target: nn.Linear, name: str) -> None:
        weight, bias = ir.named(f"{name}.modulation.weight"), ir.named(f"{name}.modulation.bias").flatten()
        # The constant factor behind it, if there is one: MatMul -> Add -> Reshape -> Multiply by a number.
        add = ir.user(ir.user(ir.layer_named(f"{name}.modulation.weight"), "MatMul"), "Add")
        scale = 1.0
        for reshape in ir.users(add, "Reshape"):
            for multiply in ir.users(reshape, "Multiply"):
                scale *= next((float(one) for one in ir.constants_of(multiply) if one.numel() == 1), 1.0)
        target.weight.data, target.bias.data = weight * scale, bias * scale

    def convolution(target: ModulatedConvolution, name: str) -> None:
        modulation(target.modulation, f"{name}.conv")
        depthwise = ir.named(f"{name}.conv.weight_dw")
        target.depthwise.weight.data = depthwise.flatten(0, 1)
        mix = ir.user(ir.user(ir.layer_named(f"{name}.conv.weight_dw"), "GroupConvolution"), "Convolution")
        (weight,) = ir.constants_of(mix)
        target.pointwise.weight.data = weight.flatten(1)
        (target.noise.data,) = ir.constants_of(ir.user(mix, "Add"))
        target.pointwise.bias.data = ir.named(f"{name}.bias").flatten()

    network.constant.data = ir.named("m.input.input")
    (full, *_) = ir.of_type("Convolution")
    modulation(network.first.modulation, "m.conv1.conv")
    (network.first.mix.weight.data,) = ir.constants_of(full)
    (network.first.noise.data,) = ir.constants_of(ir.user(full, "Add"))
    network.first.mix.bias.data = ir.named("m.conv1.bias").flatten()
    for number, level in enumerate(network.levels):
        modulation(level.up, f"m.layers.{number}.up")
        convolution(level.conv1, f"m.layers.{number}.conv1")
        convolution(level.conv2, f"m.layers.{number}.conv2")
    modulation(network.to_picture, "m.layers.6.to_img.conv")
    network.bands.weight.data = ir.named("m.layers.6.to_img.conv.weight")
    network.bands.bias.data = ir.named("m.layers.6.to_img.bias").flatten()
    return network


def fetch_wheel(folder: Path, package: str = PACKAGE) -> Path:
    """A wheel from the package index, by pip, without its dependencies.

    Args:
        package: name==version.
    Raises:
        ModelError: pip could not fetch it.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
    if subprocess.run(command, check=False).returncode:
        raise ModelError(f"pip could not fetch {package}.", advice="Fetch the wheel elsewhere and give it with --wheel.")
    return next(folder.glob("*.whl"))


def read_wheel(wheel: Path) -> tuple[IntermediateRepresentation, IntermediateRepresentation]:
    """Mapping and synthesis of a wheel whose digest is the one above.

    Raises:
        ModelError: it is another file.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ModelError(f"{wheel} has the SHA-256 {digest}, not {SHA256}.", advice=f"Fetch {PACKAGE} again.")
    with zipfile.ZipFile(wheel) as archive:
        parts = [
            [archive.read(f"random_face/data/{name}Network.{kind}") for kind in ("xml", "bin")]
            for name in ("Mapping", "Synthesis")
        ]
    return IntermediateRepresentation(*parts[0]), IntermediateRepresentation(*parts[1])


def import_generator(out: Path, wheel: Path) -> None:
    """Write `out/mapping` and `out/synthesis`, float16."""
    mapping, synthesis = read_wheel(wheel)
    convert_mapping(mapping).half().save_pretrained(out / "mapping")
    convert_synthesis(synthesis).half().save_pretrained(out / "synthesis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheel", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        import_generator(given.out, given.wheel or fetch_wheel(Path(folder)))


if __name__ == "__main__":
    main()

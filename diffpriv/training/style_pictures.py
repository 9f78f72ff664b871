"""Step 1 of `make train-styles`: heads drawn by the generator, as pictures to learn from.

    python -m diffpriv.training.style_pictures GENERATOR OUT --count N [--small HEADS]

Code i is drawn from a generator seeded with i, so a run can be resumed and repeated. Each file OUT/NNNN.npz holds CHUNK codes
and their pictures: 256 px JPEGs, and for the first `--full` of them the 1024 px picture averaged to 512 px and the features
after the levels of 64 and 128 px, by which the small heads learn. OpenVINO, if it is installed, draws four times as fast as
torch.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from diffpriv.generator.codes import CODE_STYLES, draw_codes, level_styles
from diffpriv.generator.mapping import MappingNetwork
from diffpriv.generator.small_pictures import SmallPictures
from diffpriv.generator.synthesis import SynthesisNetwork

CHUNK = 32
TRUNCATION = (0.6, 0.95)  # drawn evenly; about 0.75 looks best, wider teaches what lies around
MIXED = 0.5  # share of codes whose colour is another's


def code_of(index: int, mapping: MappingNetwork) -> torch.Tensor:
    """(1, 2, 512), always the same for an index."""
    source = torch.Generator().manual_seed(index)
    normal = torch.randn(1, CODE_STYLES, int(mapping.config["dim"]), generator=source)
    mixed, place = torch.rand(2, generator=source).tolist()
    if mixed >= MIXED:
        normal[:, 1] = normal[:, 0]
    low, high = TRUNCATION
    return draw_codes(mapping, normal, low + (high - low) * place)


@dataclass(frozen=True)
class Drawing:
    picture: np.ndarray  # (side, side, 3) uint8 RGB
    small: np.ndarray | None  # (512, 64, 64) float16, of the whole network
    middle: np.ndarray | None  # (256, 128, 128) float16


Run = Callable[[torch.Tensor], list[np.ndarray]]


class Drawer:
    """Draws on one thread, by OpenVINO where it is installed, else by torch.

    Args:
        small: heads for 256 px pictures, once they are trained; None draws by the whole network only.
    """

    def __init__(self, synthesis: SynthesisNetwork, small: SmallPictures | None = None) -> None:
        self._synthesis, self._small = synthesis, small
        self._runs: dict[bool, Run] = {}

    def _whole(self, styles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        small = self._synthesis.features(styles, 4)
        middle = self._synthesis.features(styles, 5, small)
        return self._synthesis(styles, middle), small.hidden, middle.hidden

    def _quick(self, styles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._small is None:
            return self._whole(styles)[:1]
        return (self._small(self._synthesis.features(styles, 5).hidden, styles[:, 5], 5),)

    def _compiled(self, draw: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> Run:
        try:
            import openvino
        except ImportError:

            def by_torch(styles: torch.Tensor) -> list[np.ndarray]:
                with torch.no_grad():
                    return [part.numpy() for part in draw(styles)]

            return by_torch
        networks: list[torch.nn.Module] = [network for network in (self._synthesis, self._small) if network is not None]
        with torch.no_grad():
            example = torch.zeros(1, self._synthesis.code_levels, 512)
            converted = openvino.convert_model(_Outputs(draw, networks), example_input=example)
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(converted, "CPU", options)
        return lambda styles: list(compiled(styles.numpy()).values())

    def draw(self, code: torch.Tensor, *, whole: bool) -> Drawing:
        """One head.

        Args:
            code: (1, 2, 512). whole: by the whole network, with features; else 256 px by the heads, if there are any.
        """
        if whole not in self._runs:
            self._runs[whole] = self._compiled(self._whole if whole else self._quick)
        picture, *features = self._runs[whole](level_styles(code))
        pixels = ((picture[0].clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        small, middle = (part[0].astype(np.float16) for part in features) if whole else (None, None)
        return Drawing(pixels, small, middle)


class _Outputs(torch.nn.Module):
    def __init__(self, run: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], networks: list[torch.nn.Module]) -> None:
        super().__init__()
        self.networks, self._run = torch.nn.ModuleList(networks), run

    def forward(self, styles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._run(styles)


def jpeg(picture: np.ndarray, side: int) -> np.ndarray:
    """Averaged down and encoded, (bytes,) uint8."""
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]


def read_picture(encoded: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB of what `jpeg` gave."""
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("these bytes are no picture")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def draw_chunk(number: int, mapping: MappingNetwork, drawer: Drawer, full: int) -> dict[str, np.ndarray]:
    """What file `number` holds."""
    indices = range(number * CHUNK, (number + 1) * CHUNK)
    codes = [code_of(index, mapping) for index in indices]
    kept: dict[str, np.ndarray] = {"codes": torch.cat(codes).numpy()}
    for index, code in zip(indices, codes, strict=True):
        drawing = drawer.draw(code, whole=index < full)
        kept[f"jpeg256/{index}"] = jpeg(drawing.picture, 256)
        if index < full:
            kept[f"jpeg512/{index}"] = jpeg(drawing.picture, 512)
            kept |= {f"small/{index}": np.asarray(drawing.small), f"middle/{index}": np.asarray(drawing.middle)}
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=1280)
    parser.add_argument("--full", type=int, default=640, help="heads to draw by the whole network, with features")
    parser.add_argument("--small", type=Path, help="the heads for small pictures, once they are trained")
    given = parser.parse_args()
    torch.set_num_threads(1)
    mapping = MappingNetwork.from_pretrained(given.generator / "mapping").float().eval()
    small = SmallPictures.from_pretrained(given.small).float().eval() if given.small else None
    drawer = Drawer(SynthesisNetwork.from_pretrained(given.generator / "synthesis").float().eval(), small)
    given.out.mkdir(parents=True, exist_ok=True)
    for number in range(given.count // CHUNK):
        path = given.out / f"{number:05d}.npz"
        if not path.exists():
            with torch.no_grad():
                chunk = draw_chunk(number, mapping, drawer, given.full)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as handle:
                np.savez(handle, **chunk)  # type: ignore[arg-type]
            os.replace(partial, path)


if __name__ == "__main__":
    main()

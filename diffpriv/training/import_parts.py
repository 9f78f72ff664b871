"""Import of the networks that look at heads: two of the wheel `mediapipe` -> ONNX files.

    python -m diffpriv.training.import_parts OUT [--wheel FILE] [--hair hair_segmentation.tflite]

pip fetches the wheel (Apache-2.0) without its dependencies. Wheels differ from platform to platform, the networks inside do
not: the SHA-256 of each network is checked before it is read. The hair network labels training pictures and is not shipped.
"""

import argparse
import hashlib
import tempfile
import zipfile
from pathlib import Path

from diffpriv.errors import ModelError
from diffpriv.training.import_generator import fetch_wheel
from diffpriv.training.tflite_export import Converter

PACKAGE = "mediapipe==0.10.14"
NETWORKS = {
    "face_landmark": "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    "selfie_segmentation": "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
}


def read_networks(wheel: Path) -> dict[str, bytes]:
    """TensorFlow Lite networks by name.

    Raises:
        ModelError: the wheel lacks one, or has another.
    """
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, wanted in NETWORKS.items():
            try:
                content = archive.read(f"mediapipe/modules/{name}/{name}.tflite")
            except KeyError:
                raise ModelError(f"{wheel} has no {name}.tflite.", advice=f"Fetch {PACKAGE} again.") from None
            digest = hashlib.sha256(content).hexdigest()
            if digest != wanted:
                advice = f"Fetch {PACKAGE} again."
                raise ModelError(f"{name}.tflite of {wheel} has the SHA-256 {digest}, not {wanted}.", advice=advice)
            found[name] = content
    return found


def import_parts(out: Path, wheel: Path, hair: Path | None = None) -> None:
    """Write `out/NAME.onnx` for each network.

    Args:
        hair: a TensorFlow Lite network to convert beside them, as `hair.onnx`.
    """
    networks = read_networks(wheel)
    if hair is not None:
        networks["hair"] = hair.read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in networks.items():
        (out / f"{name}.onnx").write_bytes(Converter(content).convert().SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--hair", type=Path, help="a hair network, for labels")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        import_parts(given.out, given.wheel or fetch_wheel(Path(folder), PACKAGE), given.hair)


if __name__ == "__main__":
    main()

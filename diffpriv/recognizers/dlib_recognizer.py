"""dlib's recogniser with its own five-point alignment: a judge of outputs, the builtin one's reference (extra `judges`).

Davis King's network (2017, weights CC0) maps a 150 px chip to 128 numbers. The builtin recogniser is the same network on a
fixed chip, so this judge is not independent of guidance. About 80 ms a face on one core.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from diffpriv.errors import DetectorError, ModelError
from diffpriv.recognition import measured_threshold

FACE_BOX = (24, 28, 104, 108)  # where a detector's box lies in a canonical crop: left, top, right, bottom
CHIP_SIZE = 150
CHIP_PADDING = 0.25
THRESHOLDS = {"0.01": 0.9049, "0.001": 0.9237}  # cosines at false-accept rates: `benchmarks.recognition`, 107,338 pairs


class DlibRecognizer:
    """dlib's recogniser behind the interface of `Recognizer`.

    Raises:
        ModelError: dlib, or the package that carries its models, is not installed.
    """

    def __init__(self) -> None:
        package = importlib.util.find_spec("face_recognition_models")
        if importlib.util.find_spec("dlib") is None or package is None or package.origin is None:
            raise ModelError("dlib's recogniser is not installed.", advice='Install it with pip install "diffpriv[judges]".')
        import dlib

        # The package's own __init__ needs pkg_resources, which current setuptools no longer has: find its files by hand.
        models = Path(package.origin).parent / "models"
        weights = models / "dlib_face_recognition_resnet_model_v1.dat"
        self._dlib = dlib
        self._landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._network = dlib.face_recognition_model_v1(str(weights))
        self._digest = hashlib.sha256(weights.read_bytes()).hexdigest()

    @property
    def identity(self) -> str:
        return f"dlib-resnet/1 weights={self._digest[:16]}"

    @property
    def dim(self) -> int:
        return 128

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `Recognizer.embed`; one face a call, so that a face's bits never depend on its neighbours."""
        box = self._dlib.rectangle(*FACE_BOX)
        embedded = np.empty((len(crops), self.dim), np.float32)
        for index, crop in enumerate(crops):
            picture = np.ascontiguousarray(crop)
            chip = self._dlib.get_face_chip(picture, self._landmarks(picture, box), size=CHIP_SIZE, padding=CHIP_PADDING)
            embedded[index] = self._network.compute_face_descriptor(chip)
        norms = np.linalg.norm(embedded, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise DetectorError("dlib's recogniser gave an embedding that is zero or not a number.")
        return embedded / norms

    def threshold(self, far: float) -> float:
        """See `Recognizer.threshold`. Benchmarks compare judges at rates measured on the photos at hand instead."""
        return measured_threshold(THRESHOLDS, far, "Give a similarity limit.")

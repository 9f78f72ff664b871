"""ArcFace through InsightFace, with a model pack that the user brings, or the builtin recogniser exported as one.

Source of the convention: Deng et al. 2019 (ArcFace); 112 px, five landmarks at a fixed template. Our crops are aligned to
another template by the same five points, so one fixed similarity carries every crop over: no landmarks are needed again.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffpriv.errors import DetectorError, ModelError
from diffpriv.faces.alignment import CANONICAL_LANDMARKS, CANONICAL_SIZE, estimate_similarity
from diffpriv.insightface_packs import DEFAULT_ROOT, file_digest, resolve_pack, session_settings
from diffpriv.recognition import measured_threshold

INPUT_SIZE = 112
# (5, 2): the template that ArcFace models are trained on, in their 112 px input.
ARCFACE_LANDMARKS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
THRESHOLDS_FILE = "thresholds.json"  # {"0.001": 0.31}: measured on pairs, beside the pack's weights


class InsightFaceRecognizer:
    """A pack's ArcFace model behind the interface of `Recognizer`.

    Args:
        pack: a folder with the pack's .onnx files, or a pack's name under ROOT/models.
        threads: onnxruntime threads.
        allow_download: let InsightFace fetch a named pack.
    Raises:
        DetectorError: no weights (with advice), or none that is an ArcFace model.
        ModelError: thresholds.json is there but cannot be read.
    """

    def __init__(self, pack: str, *, threads: int = 1, root: str = DEFAULT_ROOT, allow_download: bool = False) -> None:
        folder = resolve_pack(pack, root=root, allow_download=allow_download)
        self._model = _load_recognition(folder, threads)
        if tuple(self._model.input_size) != (INPUT_SIZE, INPUT_SIZE):
            raise DetectorError(
                f"The recogniser of {folder} takes {self._model.input_size} pixels; ArcFace models take {INPUT_SIZE}.",
                advice="Use a pack with a 112 px recogniser, such as buffalo_l.",
            )
        self._digest = file_digest(self._model.model_file)
        self._thresholds = _read_thresholds(folder)
        self._matrix = estimate_similarity(CANONICAL_LANDMARKS, ARCFACE_LANDMARKS)
        self._dim = int(self._run(np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)).shape[0])

    @property
    def identity(self) -> str:
        return f"insightface-arcface/1 weights={self._digest[:16]}"

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `Recognizer.embed`; one face a call, so that a face's bits never depend on its neighbours."""
        if crops.ndim != 4 or crops.shape[1:] != (CANONICAL_SIZE, CANONICAL_SIZE, 3) or crops.dtype != np.uint8:
            raise DetectorError(f"A recogniser takes (n, 128, 128, 3) uint8 crops, not {crops.shape} {crops.dtype}.")
        embedded = np.empty((len(crops), self._dim), np.float32)
        for index, crop in enumerate(crops):
            face = cv2.warpAffine(
                crop, self._matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            embedded[index] = self._run(np.ascontiguousarray(face[:, :, ::-1]))
        norms = np.linalg.norm(embedded, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise DetectorError("The recogniser gave an embedding that is zero or not a number.", advice="Check its weights.")
        return embedded / norms

    def _run(self, bgr: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._model.get_feat(bgr)[0], np.float32)
        except Exception as error:
            raise DetectorError(
                f"The recogniser failed on a face: {type(error).__name__}.", advice="Check its weights file."
            ) from error

    def threshold(self, far: float) -> float:
        """See `Recognizer.threshold`; read from thresholds.json in the pack's folder."""
        advice = f'Write a measured one to {THRESHOLDS_FILE} beside the weights, as {{"{far:g}": 0.3}}.'
        return measured_threshold(self._thresholds, far, advice)


def _load_recognition(folder: Path, threads: int) -> Any:
    from insightface.model_zoo import model_zoo

    for path in sorted(folder.glob("*.onnx")):
        try:
            model = model_zoo.get_model(str(path), **session_settings(threads))
        except Exception as error:
            raise DetectorError(
                f"{path} cannot be loaded: {type(error).__name__}.", advice="Unpack the InsightFace pack again."
            ) from error
        if model is not None and model.taskname == "recognition":
            return model
    raise DetectorError(
        f"The InsightFace pack {folder} holds no recogniser.", advice="Use a pack with one, such as buffalo_l or antelopev2."
    )


def _read_thresholds(folder: Path) -> dict[str, float]:
    path = folder / THRESHOLDS_FILE
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        thresholds = {str(float(rate)): float(similarity) for rate, similarity in table.items()}
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__}.", advice='Write it as {"0.001": 0.31}.') from error
    return thresholds

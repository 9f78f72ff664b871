"""SCRFD through InsightFace's `FaceAnalysis`, with a model pack that the user brings.

The production profile: stronger on turned and covered faces than the offline detector. Weights are never downloaded unless the
caller allows it; without them loading fails with advice, and never answers "no face".
"""

from collections.abc import Sequence

import numpy as np

from diffpriv.detectors.base import box_landmarks, check_images, plausible_landmarks, sort_faces
from diffpriv.errors import DetectorError
from diffpriv.faces.types import Face
from diffpriv.insightface_packs import DEFAULT_ROOT, file_digest, resolve_pack, session_settings

INPUT_SIDES = (128, 640)  # InsightFace's own two: the small one is for faces that fill the picture
LARGER_SIDES = (1280, 1920)  # added while the one before would shrink the picture by more than SHRINK
SHRINK = 1.25


class InsightFaceDetector:
    """A pack's detector over square inputs chosen by the picture's size.

    Args:
        pack: a folder with the pack's .onnx files, or a pack's name under ROOT/models.
        threshold: score from which a detection is a face.
        threads: onnxruntime threads.
        allow_download: let InsightFace fetch a named pack.
    Raises:
        DetectorError: no weights (with advice), or weights that are no detector with five landmarks.
    """

    def __init__(
        self,
        pack: str,
        *,
        threshold: float = 0.5,
        threads: int = 1,
        root: str = DEFAULT_ROOT,
        allow_download: bool = False,
    ) -> None:
        folder = resolve_pack(pack, root=root, allow_download=allow_download)
        try:
            from insightface.app import FaceAnalysis

            analysis = FaceAnalysis(name=str(folder), allowed_modules=["detection"], **session_settings(threads))
            model = analysis.det_model
            model.prepare(-1, det_thresh=threshold)
        except AssertionError as error:
            raise DetectorError(
                f"The InsightFace pack {folder} holds no detector.",
                advice="Use a pack with one, such as buffalo_l or antelopev2.",
            ) from error
        except Exception as error:
            raise DetectorError(
                f"The InsightFace pack {folder} cannot be loaded: {type(error).__name__}.",
                advice="Unpack it again, or check its files.",
            ) from error
        if not getattr(model, "use_kps", False):
            raise DetectorError(
                f"The detector of the InsightFace pack {folder} gives no landmarks.", advice='Use one whose name ends in "kps".'
            )
        self._model = model
        self._threshold = threshold
        self._digest = file_digest(model.model_file)

    @property
    def identity(self) -> str:
        return f"insightface-scrfd/1 threshold={self._threshold:g} weights={self._digest[:16]}"

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """See `Detector.detect`; the pictures are looked at one by one."""
        check_images(images)
        results = []
        for index, image in enumerate(images):
            try:
                results.append(self._detect_one(image))
            except Exception as error:
                raise DetectorError(
                    f"InsightFace's detector failed on picture {index} of {len(images)}: {type(error).__name__}.",
                    advice="Retry that picture alone; quarantine it if it fails again.",
                ) from error
        return results

    def _detect_one(self, image: np.ndarray) -> list[Face]:
        sides = list(INPUT_SIDES)
        for side in LARGER_SIDES:
            if max(image.shape[:2]) > sides[-1] * SHRINK:
                sides.append(side)
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        boxes, points = self._model.detect(bgr, input_size=[(side, side) for side in sides])
        height, width = image.shape[:2]
        faces = []
        for row, landmarks in zip(boxes.astype(np.float64), points.astype(np.float64), strict=True):
            x0, x1 = np.clip(row[[0, 2]], 0, width)
            y0, y1 = np.clip(row[[1, 3]], 0, height)
            if x1 <= x0 or y1 <= y0:
                continue
            box = (float(x0), float(y0), float(x1), float(y1))
            chosen = landmarks if plausible_landmarks(box, landmarks) else box_landmarks(box)
            faces.append(Face(box, chosen, min(float(row[4]), 1.0)))
        return sort_faces(faces)

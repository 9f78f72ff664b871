"""Finding faces harder than the job did: each detector looks at several scales, and every answer counts."""

from collections.abc import Sequence

import cv2
import numpy as np

from diffpriv.detectors import Detector
from diffpriv.faces.types import Face, overlap

SCALES = (1.0, 0.5, 2.0)
LARGEST_ENLARGED = 4_000_000  # pixels of the enlarged picture; larger ones show their faces well enough as they are
SMALLEST_SIDE = 48  # of a reduced picture
SMALL = 320  # a smaller thumbnail or array is enlarged to it before faces are looked for
SAME_FACE = 0.3  # overlap from which two answers mean one face


class Lookout:
    """Args:
    detectors: all are asked; one that fails fails the picture.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = list(detectors)

    @property
    def identity(self) -> str:
        return f"{' + '.join(one.identity for one in self._detectors)} at {', '.join(f'{scale:g}x' for scale in SCALES)}"

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """As a detector does."""
        return [self.faces(image) for image in images]

    def sees_one(self, pixels: np.ndarray) -> bool:
        """Whether a picture shows a face; a small one is enlarged, which shows it at once."""
        scale = SMALL / max(pixels.shape[:2])
        if scale <= 1:
            return bool(self.faces(pixels))
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        view = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        return any(detector.detect([view])[0] for detector in self._detectors)

    def faces(self, pixels: np.ndarray) -> list[Face]:
        """Faces in picture coordinates, each once, answers at full size first.

        Args:
            pixels: (height, width, 3) uint8 RGB.
        Raises:
            DetectorError: a detector could not look.
        """
        found: list[Face] = []
        height, width = pixels.shape[:2]
        for scale in SCALES:
            rows, columns = round(height * scale), round(width * scale)
            if (scale > 1 and rows * columns > LARGEST_ENLARGED) or (scale < 1 and min(rows, columns) < SMALLEST_SIDE):
                continue
            view = pixels if scale == 1 else cv2.resize(pixels, (columns, rows), interpolation=_interpolation(scale))
            for detector in self._detectors:
                (answers,) = detector.detect([np.ascontiguousarray(view)])
                for face in answers:
                    placed = _scaled(face, width / columns, height / rows)
                    if all(overlap(placed.box, other.box) < SAME_FACE for other in found):
                        found.append(placed)
        return found


def _interpolation(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC


def _scaled(face: Face, x: float, y: float) -> Face:
    if x == y == 1:
        return face
    x0, y0, x1, y1 = face.box
    # Landmarks are sampling positions: a pixel's centre is (i, j) there, (i + 0.5, j + 0.5) in boxes.
    return Face((x0 * x, y0 * y, x1 * x, y1 * y), (face.landmarks + 0.5) * (x, y) - 0.5, face.score)

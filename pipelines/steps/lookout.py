"""Finding faces harder than the job did: each detector looks at several scales and turns, and every answer counts."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from diffpriv.detectors import Detector
from diffpriv.faces.types import Face, overlap

SCALES = (1.0, 0.5, 2.0)
LARGEST_ENLARGED = 4_000_000  # pixels of the enlarged picture; larger ones show their faces well enough as they are
SMALLEST_SIDE = 48  # of a reduced picture
TURNS = (1, 2, 3)  # quarter turns, counter-clockwise, of a view whose longer side is at most LARGEST_TURNED pixels
LARGEST_TURNED = 800
TURNED_SCORE = 0.65  # a turned picture shows more that is no face
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
        return (
            f"{' + '.join(one.identity for one in self._detectors)} at {', '.join(f'{scale:g}x' for scale in SCALES)}, turned"
        )

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
        found = self._at_scales(pixels)
        for face in self._turned(pixels):
            same = [place for place, other in enumerate(found) if overlap(face.box, other.box) >= SAME_FACE]
            if not same:
                found.append(face)
            elif face.score > max(found[place].score for place in same):
                found[same[0]] = face  # seen upright at last: these landmarks are the right ones
        return found

    def _at_scales(self, pixels: np.ndarray) -> list[Face]:
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

    def _turned(self, pixels: np.ndarray) -> Iterator[Face]:
        """Faces that lie or stand on their head, in picture coordinates."""
        height, width = pixels.shape[:2]
        scale = min(1.0, LARGEST_TURNED / max(height, width))
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        view = pixels if scale == 1 else cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
        for turns in TURNS:
            turned = np.ascontiguousarray(np.rot90(view, turns))
            for detector in self._detectors:
                for face in detector.detect([turned])[0]:
                    if face.score >= TURNED_SCORE:
                        yield _scaled(_turned_back(face, turns, rows, columns), width / columns, height / rows)


def _interpolation(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC


def _turned_back(face: Face, turns: int, rows: int, columns: int) -> Face:
    """A face of np.rot90(view, turns) in the coordinates of the view, of rows x columns pixels."""
    corners = np.array([face.box[:2], face.box[2:]], np.float64)
    points = np.concatenate([corners, face.landmarks + 0.5])  # boxes' coordinates, see _scaled
    if turns == 1:
        points = np.stack([columns - points[:, 1], points[:, 0]], 1)
    elif turns == 2:
        points = (columns, rows) - points
    else:
        points = np.stack([points[:, 1], rows - points[:, 0]], 1)
    (x0, y0), (x1, y1) = points[:2].min(0), points[:2].max(0)
    return Face((float(x0), float(y0), float(x1), float(y1)), (points[2:] - 0.5).astype(np.float32), face.score)


def _scaled(face: Face, x: float, y: float) -> Face:
    if x == y == 1:
        return face
    x0, y0, x1, y1 = face.box
    # Landmarks are sampling positions: a pixel's centre is (i, j) there, (i + 0.5, j + 0.5) in boxes.
    return Face((x0 * x, y0 * y, x1 * x, y1 * y), (face.landmarks + 0.5) * (x, y) - 0.5, face.score)

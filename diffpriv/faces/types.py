"""A detected face, and the patch that replaces one, in picture coordinates.

Pixel (column i, row j) covers [i, i + 1) x [j, j + 1); its centre is (i + 0.5, j + 0.5) for boxes, which are areas, and (i, j)
for landmarks, which are sampling positions (OpenCV's convention, the one `faces.alignment` warps with).
"""

from dataclasses import dataclass, field

import numpy as np

LANDMARK_NAMES = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")  # the subject's right is the picture's left


@dataclass(frozen=True, eq=False)
class Face:
    """A face that was found.

    Attributes:
        box: (x0, y0, x1, y1), half-open, float pixels; may reach over the picture's edge.
        landmarks: (5, 2) float64 pixels in the order of LANDMARK_NAMES; stored read-only.
        score: the detector's confidence in [0, 1].
    Raises:
        ValueError: a value is not finite, the box is empty, or the landmarks are not (5, 2).
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = (float(value) for value in self.box)
        landmarks = np.array(self.landmarks, dtype=np.float64)
        if landmarks.shape != (5, 2):
            raise ValueError(f"landmarks have shape {landmarks.shape}, not (5, 2)")
        if not (np.isfinite([x0, y0, x1, y1, self.score]).all() and np.isfinite(landmarks).all()):
            raise ValueError("a face's box, landmarks and score must be finite")
        if x1 <= x0 or y1 <= y0:
            raise ValueError("a face's box must have a positive width and height")
        landmarks.flags.writeable = False
        object.__setattr__(self, "box", (x0, y0, x1, y1))
        object.__setattr__(self, "landmarks", landmarks)
        object.__setattr__(self, "score", float(self.score))

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]


@dataclass(frozen=True, eq=False)
class Patch:
    """Pixels to blend into a picture at (x, y): result = (1 - alpha) * picture + alpha * pixels.

    Attributes:
        x, y: column and row of the patch's first pixel; the patch lies inside its picture.
        pixels: (height, width, 3) uint8 RGB.
        alpha: (height, width) float32 in [0, 1]; where it is 0 the picture keeps its bytes.
    """

    x: int
    y: int
    pixels: np.ndarray = field(repr=False)
    alpha: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"a patch's pixels must be (height, width, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}")
        if self.alpha.shape != self.pixels.shape[:2] or self.alpha.dtype != np.float32:
            raise ValueError(f"a patch's alpha must be float32 of its pixels' size, not {self.alpha.shape} {self.alpha.dtype}")
        if not (self.alpha.size and self.alpha.min() >= 0 and self.alpha.max() <= 1):  # NaN fails here too
            raise ValueError("a patch's alpha must lie in [0, 1] and a patch must have pixels")
        if self.x < 0 or self.y < 0:
            raise ValueError(f"a patch starts at ({self.x}, {self.y}), outside its picture")


def overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    """Intersection over union of two half-open boxes, in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return both / (areas - both)

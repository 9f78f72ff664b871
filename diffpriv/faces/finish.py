"""The last touches on a drawing: it is made as sharp as its photo and gets the skin tone that it was told.

Sharpness is the deviation of the Laplacian of grey levels inside the face. The new face is told it in quarter octaves, and tone
in the steps of `faces.appearance`; neither says more than those steps. Pure: numpy and OpenCV.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.faces.mesh import OVAL, Mesh

STEPS_AN_OCTAVE = 4
LEAST, MOST = 0.5, 64.0  # levels
FINE = 1.0  # deviation in pixels of the Gaussian whose complement is added
BLURRED, SHARPENED = -0.7, 1.5  # of that complement that is added, at least and at most: beyond, edges get a rim
MOST_TONE = np.array([14.0, 8.0, 10.0], np.float32)  # CIELAB: beyond, skin looks painted
SHRUNK = 0.8  # of the outline, about its middle: hair and the outline itself have edges of their own


@dataclass(frozen=True, eq=False)
class Finish:
    """What a new face is given of its photo. sharpness: levels, of `measure_sharpness`. tone: (3,) CIELAB of its cheeks."""

    sharpness: float
    tone: np.ndarray


def measure_sharpness(picture: np.ndarray, mesh: Mesh) -> float:
    """Levels, in steps of a quarter octave between 0.5 and 64.

    Args:
        picture: (height, width, 3) uint8 RGB. mesh: of the face, in its pixels.
    """
    points = mesh.points[list(OVAL)]
    middle = points.mean(0)
    outline = middle + SHRUNK * (points - middle)
    low = np.maximum(np.floor(outline.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(outline.max(0)).astype(int) + 1, picture.shape[1::-1])
    if (high - low).min() < 3:
        return LEAST
    part = picture[low[1] : high[1], low[0] : high[0]]
    area = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(area, [np.round(outline - low).astype(np.int32)], 1)
    levels = float(np.clip(_deviation(part.astype(np.float32), area > 0), LEAST, MOST))
    return float(2 ** (np.round(np.log2(levels) * STEPS_AN_OCTAVE) / STEPS_AN_OCTAVE))


def match_sharpness(drawn: np.ndarray, area: np.ndarray, wanted: float) -> np.ndarray:
    """The drawing with its finest detail made stronger or weaker until it is as sharp as wanted, within bounds.

    Args:
        drawn: (h, w, 3) float32 RGB levels.
        area: (h, w) bool, where sharpness is measured.
        wanted: levels, of `measure_sharpness`.
    """
    if not area.any():
        return drawn
    detail = drawn - cv2.GaussianBlur(drawn, (0, 0), FINE)
    own, fine = _deviation(drawn, area), _deviation(detail, area)
    if fine < 1e-3:
        return drawn
    return drawn + float(np.clip((wanted - own) / fine, BLURRED, SHARPENED)) * detail


def match_tone(drawn: np.ndarray, skin: np.ndarray, own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The drawing with its skin moved to a tone, within bounds.

    Args:
        drawn: (h, w, 3) float32 RGB levels.
        skin: (h, w) float32, how much of the change each pixel takes.
        own, wanted: (3,) CIELAB of its cheeks, now and then.
    """
    change = np.clip(wanted - own, -MOST_TONE, MOST_TONE).astype(np.float32)
    lab = cv2.cvtColor(np.clip(drawn, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = lab + skin[..., None] * change
    lab[..., 0] = np.clip(lab[..., 0], 0, 100)
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * 255


def _deviation(picture: np.ndarray, area: np.ndarray) -> float:
    grey = cv2.cvtColor(np.ascontiguousarray(picture, np.float32), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[area].std()) if area.any() else 0.0

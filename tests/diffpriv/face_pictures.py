"""Pictures that ship inside dependencies, and faces at places of our choosing."""

import cv2
import numpy as np

from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.faces.types import Face


def astronaut() -> np.ndarray:
    """512 x 512, one face."""
    from skimage import data

    return data.astronaut()


def group_photo() -> np.ndarray:
    """886 x 1280, six faces."""
    from insightface.data import get_image

    return np.ascontiguousarray(get_image("t1")[:, :, ::-1])


def rescaled(image: np.ndarray, scale: float) -> np.ndarray:
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def texture(height: int, width: int, seed: int = 5) -> np.ndarray:
    """Smooth coloured noise: every pixel tells where it came from, and warping it loses little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def face_at(x: float, y: float, scale: float, degrees: float = 0.0) -> Face:
    """A face whose canonical square, of side 128 * scale and turned, is centred at (x, y)."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (CANONICAL_LANDMARKS - 64) @ turn.T * scale + (x, y)
    half = 44 * scale
    return Face((x - half, y - half, x + half, y + 1.3 * half), landmarks, 0.9)

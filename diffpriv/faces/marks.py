"""Five coloured dots: how the denoiser is told pose and expression once the face itself is blanked.

The canonical square fixes where a face is, how large and how upright it is; what is left in the five landmarks is the turn of
the head and the width of the mouth. They are drawn into the blanked region of the picture that the denoiser sees, a soft dot
each, in the colour of their kind. A published face has its landmarks there on purpose, so the dots tell nothing that the output
does not.
Pure: numpy, no random numbers.
"""

import numpy as np

from diffpriv.faces.alignment import CANONICAL_SIZE

MARK_SIGMA = 3.0  # canonical pixels
# RGB in [-1, 1] on the blank's grey 0, in the order of LANDMARK_NAMES: told apart by the autoencoder at any position.
MARK_COLOURS = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [-1, 1, 1]], np.float32)


def landmark_marks(landmarks: np.ndarray, size: int = CANONICAL_SIZE) -> np.ndarray:
    """The dots of n faces on grey.

    Args:
        landmarks: (n, 5, 2) pixels of the 128 px canonical square; may lie outside it.
        size: side of the picture to draw.
    Returns:
        (n, 3, size, size) float32 in [-1, 1], 0 where there is no dot.
    """
    scale = CANONICAL_SIZE / size
    position = np.arange(size, dtype=np.float32) * np.float32(scale) + np.float32((scale - 1) / 2)
    offsets = position[None, None, None] - np.asarray(landmarks, np.float32)[..., None]  # (n, 5, 2, size)
    weights = np.exp(-(offsets**2) / np.float32(2 * MARK_SIGMA**2))
    dots = np.einsum("nky,nkx,kc->ncyx", weights[:, :, 1], weights[:, :, 0], MARK_COLOURS)
    return np.clip(dots, -1, 1).astype(np.float32)


def mirrored_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """(n, 5, 2) of faces flipped left to right: positions mirrored in the square, right and left exchanged."""
    flipped = np.array(landmarks)[:, [1, 0, 2, 4, 3]]
    flipped[..., 0] = CANONICAL_SIZE - 1 - flipped[..., 0]
    return flipped

"""Moving a new face a little, so that its landmarks come to stand where the original's are.

A denoiser that is told of pose by five dots alone gets it right within some tenth of the eye distance. What is left is for the
most part one shift, turn and stretch of the whole face, which an affine map undoes for less than another draw would cost.
Pure: numpy and OpenCV's warp, no random numbers.
"""

import cv2
import numpy as np

from diffpriv.faces.alignment import CANONICAL_SIZE

MOST = 0.2  # largest change of a length or an angle (in radians) that is a nudge; beyond it, the face is another one
SHRINK = 4.0  # canonical pixels squared, against the landmarks' spread: keeps the map of nearly collinear points tame


def nudge(crop: np.ndarray, seen: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """The crop with the landmarks `seen` carried towards `wanted`; None where that would take more than a nudge.

    Args:
        crop: (size, size, 3) uint8 RGB. seen, wanted: (5, 2) pixels of the 128 px canonical square.
    """
    middle, target = seen.mean(0), wanted.mean(0)
    centred = np.asarray(seen - middle, np.float64)
    # Ridge regression of the displacement, so that what the points do not say stays as it is.
    covariance = centred.T @ centred + SHRINK * np.eye(2)
    change = np.linalg.solve(covariance, centred.T @ (wanted - target - centred)).T
    if np.abs(change).max() > MOST or np.abs(target - middle).max() > MOST * CANONICAL_SIZE / 2:
        return None
    linear = np.eye(2) + change
    # Canonical to crop pixels: p = k q + c at every size, see `faces.alignment`.
    size = crop.shape[0]
    k = CANONICAL_SIZE / size
    c = np.full(2, (k - 1) / 2)
    matrix = np.empty((2, 3))
    matrix[:, :2] = linear
    matrix[:, 2] = (linear @ (c - middle) + target - c) / k
    return cv2.warpAffine(crop, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)

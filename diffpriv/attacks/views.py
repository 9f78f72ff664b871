"""What an attacker is shown of a crop: to find out which part tells who it is.

The method replaces what is inside the face mask and keeps clothes, background and the hair beyond the head's outline; a match
that needs only those is no failure of the new face, and no better face would prevent it.
"""

import numpy as np

from diffpriv.faces.compositing import face_mask

VIEWS = ("whole crop", "face only", "surroundings only")
GREY = 128


def seen(crops: np.ndarray, view: str) -> np.ndarray:
    """(n, 128, 128, 3) uint8 -> the same, what the view leaves out painted grey."""
    if view == "whole crop":
        return crops
    mask = face_mask(crops.shape[1])
    weight = (mask if view == "face only" else 1 - (mask > 0).astype(np.float32))[None, :, :, None]
    return np.rint(crops * weight + GREY * (1 - weight)).astype(np.uint8)

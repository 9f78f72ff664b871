"""What the model may not see: the face region, blanked in its view of the picture."""

import numpy as np

from diffpriv.faces.alignment import CANONICAL_SIZE
from diffpriv.faces.compositing import face_mask


def blank_mask(size: int = CANONICAL_SIZE) -> np.ndarray:
    """(size, size) float32: 1 wherever the new face will have any weight, 0 elsewhere.

    The region blanked is exactly the support of the blend, so the model never sees a pixel that it is to replace.
    """
    return (face_mask(size) > 0).astype(np.float32)

"""Multi-band blending: two pictures joined along a mask, each octave over a width of its own (Burt and Adelson 1983).

Fine detail changes over within a pixel or two, tone over the width of the coarsest octave, so that neither a line nor a step
shows. Pure: numpy and OpenCV, no random numbers.
"""

import cv2
import numpy as np


def blend_bands(under: np.ndarray, over: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    """`over` where the mask is 1, `under` where it is 0.

    Args:
        under, over: (height, width, 3) float32. mask: (height, width) float32 in [0, 1].
        levels: octaves; the coarsest blends over about 2 ** levels pixels.
    Returns:
        (height, width, 3) float32, not clamped.
    """
    levels = max(1, min(levels, int(np.log2(max(2, min(mask.shape)))) - 1))
    weights = [mask]
    difference = [over - under]  # the result is under + blended difference, since the bands are linear
    for _ in range(levels):
        weights.append(cv2.pyrDown(weights[-1]))
        difference.append(cv2.pyrDown(difference[-1]))
    blended = difference[-1] * weights[-1][..., None]
    for level in reversed(range(levels)):
        size = difference[level].shape[1::-1]
        band = difference[level] - cv2.pyrUp(difference[level + 1], dstsize=size)
        blended = cv2.pyrUp(blended, dstsize=size) + band * weights[level][..., None]
    return under + blended

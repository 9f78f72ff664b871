"""Is this the same picture? Perceptual hashes to find candidates, correlation of detail to be sure.

Hash: Zauner 2010 (pHash): luma at 32 x 32, DCT-II, the 8 x 8 lowest frequencies against their median, 64 bits. It survives
re-encoding and resizing, but so does a new face with the old pose and light; so a candidate counts only if its detail, between
1 and 4 pixels of a 64 px chip, correlates with the original's. Detail is what a replaced, blurred or filled face lacks.
Pure: numpy and OpenCV, no files.
"""

import cv2
import numpy as np

from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop

CHIP = 64
NEAR_PICTURE = 10  # bits of 64 by which two versions of one picture may differ
NEAR_FACE = 16  # the same for aligned faces; wide, as `likeness` decides
SAME_DETAIL = 0.88  # likeness from which detail is that of one photo; figures in docs/datasets.md
# Rows and columns of a chip that lie wholly in a replaced face, brows to mouth; around it the picture stays as it was.
INSIDE = (slice(23, 54), slice(16, 48))
SHIFT = 4  # chip pixels by which two alignments of one face may differ
FLAT = 0.8  # grey levels of detail, root mean square, below which there is nothing to compare


def perceptual_hash(pixels: np.ndarray) -> int:
    """64 bits of a picture, (height, width, 3) uint8 RGB or (height, width) uint8."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].flatten()
    bits = low > np.median(low[1:])
    return int(np.packbits(bits).view(">u8")[0])


def distances(one: int, many: np.ndarray) -> np.ndarray:
    """(n,) differing bits between a hash and (n,) uint64 hashes."""
    different = np.bitwise_xor(many, np.uint64(one))
    return np.unpackbits(different[:, None].view(np.uint8), axis=1).sum(1)


def face_chip(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(64, 64) uint8: the aligned face's luma."""
    crop = warp_to_crop(pixels, face_to_crop_matrix(landmarks))
    return cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (CHIP, CHIP), interpolation=cv2.INTER_AREA)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Highest correlation, -1 to 1, of two chips' detail over small shifts; 0 where one of them has no detail."""
    rows, columns = INSIDE
    around = slice(rows.start - SHIFT, rows.stop + SHIFT), slice(columns.start - SHIFT, columns.stop + SHIFT)
    first, second = _detail(one)[around], _detail(other)[rows, columns]
    if first.std() < FLAT or second.std() < FLAT:
        return 0.0
    found = cv2.matchTemplate(np.ascontiguousarray(first), np.ascontiguousarray(second), cv2.TM_CCOEFF_NORMED)
    return float(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0).max())


def _detail(chip: np.ndarray) -> np.ndarray:
    values = chip.astype(np.float32)
    return cv2.GaussianBlur(values, (0, 0), 1.0) - cv2.GaussianBlur(values, (0, 0), 4.0)

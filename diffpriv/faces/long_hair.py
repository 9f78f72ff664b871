"""The photo's hair below the chin, which lies on neck and shoulders where no drawing reaches.

Where the new head's hair is long too, the old locks go on from it in its colour; where it is short they are part of the old
head and go with it. Pure: numpy and OpenCV, no random numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np

LEAST_HAIR = 40  # pixels that say what colour hair has
CONTINUED = 0.3  # share of the old hair's rows beside the chin that new hair must cover for the old locks to go on from it
BAND = 0.7  # eye distances above the chin where old and new hair are compared
MOST_CONTRAST = 1.6  # factor on the locks' own contrast


@dataclass(frozen=True, eq=False)
class LongHair:
    """locks: (h, w) float32, the old hair from beside the chin downwards. beside: the old hair beside the chin alone."""

    locks: np.ndarray
    beside: np.ndarray


def find_long_hair(hair: np.ndarray, head: np.ndarray, chin: float, unit: float) -> LongHair:
    """What of a head's hair hangs below its chin.

    Args:
        hair, head: (h, w) float32 in [0, 1], of the photo.
        chin: its row.
        unit: an eye distance, pixels.
    """
    rows = np.arange(hair.shape[0], dtype=np.float32)[:, None]
    own = hair * (head > 0.5)
    below = np.clip((rows - chin + BAND * unit) / (0.3 * unit) + 0.5, 0, 1)
    beside = own * ((rows < chin) & (rows > chin - BAND * unit))
    return LongHair((own * below).astype(np.float32), beside.astype(np.float32))


def goes_on(old: LongHair, new_hair: np.ndarray) -> bool:
    """Whether new hair lies where the old locks begin, so that they can hang on from it.

    Args:
        new_hair: (h, w) float32, the drawing's hair over the photo.
    """
    rows = np.flatnonzero(old.beside.max(1) > 0.5)
    if not len(rows):
        return False
    lowest = old.beside[rows[len(rows) // 2] :]  # short new hair reaches into the upper half too
    wanted, there = float(lowest.sum()), float((lowest * new_hair[rows[len(rows) // 2] :]).sum())
    return wanted > 0 and there >= CONTINUED * wanted


def recolour(picture: np.ndarray, locks: np.ndarray, drawn: np.ndarray, new_hair: np.ndarray) -> np.ndarray:
    """The picture with its locks in the new hair's colour: means and deviations in CIELAB (Reinhard et al. 2001).

    Args:
        picture, drawn: (h, w, 3) float32 RGB levels, the photo and the drawing over it.
        locks, new_hair: (h, w) float32, where the old locks and the new hair are.
    """
    old_at, new_at = locks > 0.5, new_hair > 0.7
    if old_at.sum() < LEAST_HAIR or new_at.sum() < LEAST_HAIR:
        return picture
    lab, wanted = _lab(picture), _lab(drawn)[new_at]
    mean, deviation = lab[old_at].mean(0), lab[old_at].std(0)
    contrast = np.minimum(wanted.std(0) / np.maximum(deviation, 1e-3), MOST_CONTRAST)
    turned = (lab - mean) * contrast + wanted.mean(0)
    turned[..., 0] = np.clip(turned[..., 0], 0, 100)
    coloured = cv2.cvtColor(turned.astype(np.float32), cv2.COLOR_LAB2RGB) * 255
    return picture + locks[..., None] * (coloured - picture)


def _lab(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.clip(picture, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

"""Putting faces back: the mask of what a face is in the canonical crop, crops warped to patches, patches blended into pictures.

A picture changes only where a patch's alpha is above zero; every other pixel keeps its value exactly, because
p + 0 * (q - p) = p in float32. Pure: numpy and OpenCV's warp, no files, no random numbers.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from diffpriv.faces.alignment import CANONICAL_SIZE
from diffpriv.faces.types import Patch

# The mask in the 128 px square: brows begin near y = 36, chins end near y = 120, cheeks lie within 64 +- 42. It also covers the
# hair line, the ears and the outline of the head, by which a trained attacker tells people apart when the face is new.
MASK_CENTRE = (64.0, 66.0)
MASK_RADII = (57.0, 58.0)
# |dx|^p + |dy|^p = 1: boxy above the centre, rounder below, where jaws taper and neck and clothes are to stay in sight.
MASK_POWER_ABOVE = 3.0
MASK_POWER_BELOW = 2.6
MASK_OPAQUE = 0.84  # share of the radius up to which the mask is 1; from there to 1 it fades smoothly to 0
# The same outline, smaller: brows, cheeks and chin.
SKIN_CENTRE = (64.0, 75.0)
SKIN_RADII = (42.0, 44.0)
SKIN_FADE = 0.4  # of the radius

# Weight of a patch in a pixel that several claim is alpha / (1 + this - alpha): an opaque patch all but outvotes a feather, so
# one face's feather never lets a neighbour's original pixels shine through its replacement.
OVERLAP_SOFTNESS = 1e-3


def face_mask(size: int = CANONICAL_SIZE) -> np.ndarray:
    """(size, size) float32 in [0, 1]: 1 over the face, hair line, ears and jaw included, fading to 0 before the crop's edge."""
    fade = np.clip((1 - _radius(size, MASK_CENTRE, MASK_RADII)) / (1 - MASK_OPAQUE), 0, 1)
    return (fade * fade * (3 - 2 * fade)).astype(np.float32)


def skin_weight(size: int = CANONICAL_SIZE) -> np.ndarray:
    """(size, size) float32 in [0, 1]: 1 from brows to chin, where a face has skin rather than hair or background; soft rim."""
    radius = _radius(size, SKIN_CENTRE, SKIN_RADII)
    return np.clip((1 - radius) / SKIN_FADE + 0.5, 0, 1).astype(np.float32)


def _radius(size: int, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """(size, size) float64: 1 on the outline |dx|^p + |dy|^p = 1, 0 at its centre."""
    scale = CANONICAL_SIZE / size
    # Pixel centres: crop coordinates of `faces.alignment` put a pixel's centre at whole numbers at every size.
    position = np.arange(size, dtype=np.float64) * scale + (scale - 1) / 2
    dx = np.abs(position - centre[0])[None, :] / radii[0]
    offset = position - centre[1]
    dy = np.abs(offset)[:, None] / radii[1]
    power = np.where(offset < 0, MASK_POWER_ABOVE, MASK_POWER_BELOW)[:, None]
    return (dx**power + dy**power) ** (1 / power)


def crop_to_patch(image: np.ndarray, crop: np.ndarray, matrix: np.ndarray, mask: np.ndarray) -> Patch:
    """The crop carried back to where it came from, at the picture's own resolution.

    Args:
        image: the picture, (height, width, 3) uint8 RGB; only its size is read.
        crop: (size, size, 3) uint8 RGB, the canonical square.
        matrix: (2, 3) from picture to crop, `faces.alignment.face_to_crop_matrix`.
        mask: (size, size) float32 in [0, 1].
    Returns:
        a patch that covers the mask's support and lies inside the picture.
    Raises:
        ValueError: shapes disagree, or the mask's support lies wholly outside the picture.
    """
    size = crop.shape[0]
    if crop.shape != (size, size, 3) or mask.shape != (size, size):
        raise ValueError(f"crop {crop.shape} and mask {mask.shape} are not one square")
    x0, y0, x1, y1 = _support_in_picture(image.shape[:2], mask, cv2.invertAffineTransform(np.asarray(matrix, np.float64)))
    corner, extent = (x0, y0), (x1 - x0, y1 - y0)
    pixels = warp_to_patch(crop, matrix, corner, extent, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
    alpha = plane_in_patch(mask, matrix, corner, extent)
    return Patch(x0, y0, pixels, np.clip(alpha, 0, 1))


def plane_in_patch(plane: np.ndarray, matrix: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A (size, size) float plane of the canonical square at the picture's resolution, 0 beyond it; see `warp_to_patch`."""
    return warp_to_patch(plane.astype(np.float32), matrix, corner, size, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)


def _support_in_picture(shape: tuple[int, ...], mask: np.ndarray, back: np.ndarray) -> tuple[int, int, int, int]:
    """Half-open pixel box of the mask's nonzero part, carried to the picture and cut at its edges."""
    rows, columns = np.nonzero(mask.max(1) > 0)[0], np.nonzero(mask.max(0) > 0)[0]
    if not len(rows):
        raise ValueError("the mask is empty")
    left, right, top, bottom = columns[0] - 1, columns[-1] + 1, rows[0] - 1, rows[-1] + 1
    corners = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]], np.float64) @ back.T
    height, width = shape[:2]
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (width, height))
    if x1 <= x0 or y1 <= y0:
        raise ValueError("the face lies outside the picture")
    return int(x0), int(y0), int(x1), int(y1)


def warp_to_patch(
    source: np.ndarray,
    matrix: np.ndarray,
    corner: tuple[int, int],
    size: tuple[int, int],
    interpolation: int,
    border: int,
) -> np.ndarray:
    """Canonical square to a rectangle of the picture; where that is coarser, warp finer and average, so that nothing aliases.

    Args:
        matrix: (2, 3) from picture to crop. corner: (x, y) of the rectangle. size: its (width, height).
    """
    to_patch: np.ndarray = cv2.invertAffineTransform(np.asarray(matrix, np.float64))
    to_patch[:, 2] -= np.array(corner, np.float64)
    width, height = size
    scale = float(np.sqrt(abs(np.linalg.det(to_patch[:, :2]))))  # picture pixels per crop pixel
    factor = 1 if scale > 0.75 else min(8, int(np.ceil(1.0 / scale)))
    finer = to_patch * factor
    finer[:, 2] += (factor - 1) / 2
    warped = cv2.warpAffine(source, finer, (width * factor, height * factor), flags=interpolation, borderMode=border)
    if factor == 1:
        return warped
    return cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)


def apply_patches(image: np.ndarray, patches: Sequence[Patch]) -> np.ndarray:
    """A new picture with every patch blended in; the result does not depend on the patches' order beyond rounding.

    Where patches overlap, a pixel's total coverage is 1 - product(1 - alpha) and each patch's share of it grows with its alpha,
    so the middle of one face is never thinned out by the feather of the next.

    Args:
        image: (height, width, 3) uint8 RGB; not changed.
    Raises:
        ValueError: a patch reaches outside the picture.
    """
    height, width = image.shape[:2]
    for patch in patches:
        if patch.y + patch.alpha.shape[0] > height or patch.x + patch.alpha.shape[1] > width:
            raise ValueError("a patch reaches outside its picture")
    result = image.copy()
    for group in _overlapping_groups(patches):
        _blend(result, group)
    return result


def _overlapping_groups(patches: Sequence[Patch]) -> list[list[Patch]]:
    """Patches whose rectangles touch, directly or through others, together; mostly groups of one."""
    groups: list[list[Patch]] = []
    for patch in patches:
        touching = [group for group in groups if any(_touch(patch, other) for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([*(member for group in touching for member in group), patch])
    return groups


def _touch(first: Patch, second: Patch) -> bool:
    (height_1, width_1), (height_2, width_2) = first.alpha.shape, second.alpha.shape
    return (
        first.x < second.x + width_2
        and second.x < first.x + width_1
        and first.y < second.y + height_2
        and second.y < first.y + height_1
    )


def _blend(picture: np.ndarray, group: Sequence[Patch]) -> None:
    """Blend one group into `picture`, in place."""
    x0, y0 = min(patch.x for patch in group), min(patch.y for patch in group)
    x1 = max(patch.x + patch.alpha.shape[1] for patch in group)
    y1 = max(patch.y + patch.alpha.shape[0] for patch in group)
    region = picture[y0:y1, x0:x1]
    if len(group) == 1:
        colour: np.ndarray = group[0].pixels.astype(np.float32)
        coverage: np.ndarray = group[0].alpha
    else:
        weighted = np.zeros(region.shape, np.float32)
        weights = np.zeros(region.shape[:2], np.float32)
        clear = np.ones(region.shape[:2], np.float32)
        for patch in group:
            rows, columns = patch.alpha.shape
            window = (slice(patch.y - y0, patch.y - y0 + rows), slice(patch.x - x0, patch.x - x0 + columns))
            weight = patch.alpha / (np.float32(1 + OVERLAP_SOFTNESS) - patch.alpha)
            weighted[window] += weight[..., None] * patch.pixels
            weights[window] += weight
            clear[window] *= 1 - patch.alpha
        colour = weighted / np.maximum(weights, np.float32(1e-12))[..., None]
        coverage = 1 - clear
    # p + alpha (q - p), in place: exactly p where alpha is 0 and exactly q where it is 1, and never outside [0, 255].
    below = region.astype(np.float32)
    colour -= below
    colour *= coverage[..., None]
    colour += below
    region[...] = np.rint(colour, out=colour).astype(np.uint8)

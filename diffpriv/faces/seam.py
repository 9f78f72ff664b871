"""Making a replaced face belong to its picture: colour at the rim, sharpness and grain inside, and a measure of the seam.

A crop of 128 px put over a face of 400 px is softer than the rest of the photo, and its tone may be a little off; both give it
away as pasted. Three corrections, all low-dimensional statistics of the photo, none a copy of the face's own pixels:
  colour     the median difference to the original in the mask's fading rim, everywhere, and its smooth remainder near the rim:
             what shows beside the face decides its tone. The original's own skin has no say: a trained attacker reads it;
  sharpness  the crop's finest octave amplified until it varies as the original's did, never more than doubled;
  grain      keyed noise in the octaves that a crop of this size cannot hold, as strong as the original's residual there.
The noise comes from the face's seed, so the same face key gives the same pixels. Pure: no files, no global random state.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.faces.alignment import valid_mask, warp_to_crop
from diffpriv.faces.compositing import crop_to_patch, face_mask, plane_in_patch, skin_weight
from diffpriv.faces.types import Patch
from diffpriv.keyed_noise import keyed_normal

GRAIN_LABEL = "seam/grain"
MAX_TONE = 16.0  # levels; a larger difference at the rim is another hair or background, not another tone
MAX_LOCAL = 16.0
LOCAL_REACH = 9.0  # crop pixels over which the rim's remainder is smoothed
MAX_SHARPENING = 1.0
MAX_GRAIN = 4.0  # levels, standard deviation in one octave: more shows as speckle where the original had lashes, not grain
FIRST_SIGMA = 0.8  # of the finest octave's lower edge, picture pixels
MAX_OCTAVES = 5
LARGEST_NOISE = 1024  # side of the keyed noise that is drawn; larger faces repeat it
ENOUGH = 50_000  # values that a median needs at most
INSIDE = 0.999  # alpha from which a pixel is wholly the new face's


def blend_face(image: np.ndarray, crop: np.ndarray, matrix: np.ndarray, seed: bytes, mask: np.ndarray | None = None) -> Patch:
    """`compositing.crop_to_patch` with the three corrections.

    Args:
        image: the original picture, (height, width, 3) uint8 RGB.
        crop: the new face, (size, size, 3) uint8 RGB.
        matrix: (2, 3), picture to crop.
        seed: the face's 32 bytes; draws the grain.
        mask: (size, size) float32; default `face_mask(size)`.
    """
    size = crop.shape[0]
    mask = face_mask(size) if mask is None else mask
    valid = valid_mask(image.shape[0], image.shape[1], matrix, size)
    matched = match_colour(crop, warp_to_crop(image, matrix, size), mask, valid)
    patch = crop_to_patch(image, matched, matrix, mask)
    scale = 1 / float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))  # picture pixels per crop pixel
    # Hair has detail that a cheek should not get.
    skin = plane_in_patch(skin_weight(size), matrix, (patch.x, patch.y), patch.alpha.shape[::-1]) > 0.5
    return add_detail(image, patch, skin, scale, seed)


def match_colour(crop: np.ndarray, original: np.ndarray, mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The crop with its tone moved to that of the picture around the mask.

    Args:
        crop, original: (size, size, 3) uint8 RGB, aligned alike. mask: (size, size) float32.
        valid: (size, size) float32, 0 where the original shows mirrored pixels from beyond the picture's edge.
    """
    rim = ((mask > 0) & (mask < INSIDE) & (valid > 0.5)).astype(np.float32)
    if rim.sum() < 16:
        return crop
    difference = original.astype(np.float32) - crop
    tone = np.clip(np.median(difference[rim > 0], axis=0), -MAX_TONE, MAX_TONE).astype(np.float32)
    sigma = LOCAL_REACH * crop.shape[0] / 128
    weight = cv2.GaussianBlur(rim, (0, 0), sigma)
    bounded = np.clip(difference - tone, -MAX_LOCAL, MAX_LOCAL)
    remainder = cv2.GaussianBlur(bounded * rim[..., None], (0, 0), sigma)
    # The constant makes the local part fade out away from the rim, where the blurred weight is small.
    local = remainder / (weight[..., None] + np.float32(0.1))
    return np.clip(np.rint(crop + tone + local), 0, 255).astype(np.uint8)


def add_detail(image: np.ndarray, patch: Patch, skin: np.ndarray, scale: float, seed: bytes) -> Patch:
    """Sharpness and grain as in the original's skin under the patch; the patch unchanged where that is too small to measure."""
    height, width = patch.alpha.shape
    inside = (patch.alpha >= INSIDE) & skin
    if inside.sum() < 256:
        return patch
    original = _luma(image[patch.y : patch.y + height, patch.x : patch.x + width])
    pixels = patch.pixels.astype(np.float32)
    octaves = int(np.clip(np.ceil(np.log2(max(scale, 1.0))) + 1, 1, MAX_OCTAVES))

    # The octave just below those that the crop cannot hold: it is there, but a decoder leaves it weak.
    top = _octave(_luma(pixels), octaves)
    wanted, present = float(_octave(original, octaves)[inside].std()), float(top[inside].std())
    pixels += np.clip(wanted / max(present, 0.1) - 1, 0, MAX_SHARPENING).astype(np.float32) * top[..., None]

    drawn = _noise(seed, height, width)
    # Coarsest first: what an octave's noise leaves in the finer ones is then measured there, and counts.
    for index in reversed(range(octaves)):
        theirs, ours = _octave(original, index)[inside], _octave(_luma(pixels), index)[inside]
        missing = _robust_std(theirs) ** 2 - _robust_std(ours) ** 2
        if missing > 0:
            noise = _octave(drawn, index)
            strength = min(float(np.sqrt(missing)), MAX_GRAIN) / max(float(noise.std()), 1e-6)
            pixels += np.float32(strength) * noise[..., None]
    return Patch(patch.x, patch.y, np.clip(np.rint(pixels), 0, 255).astype(np.uint8), patch.alpha)


def _luma(pixels: np.ndarray) -> np.ndarray:
    """(h, w) float32, Rec. 601."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _octave(plane: np.ndarray, index: int) -> np.ndarray:
    """A band-pass plane at full resolution, 0 the finest: the difference of two blurs, the coarser twice as wide."""
    finer = plane if index == 0 else _blur(plane, FIRST_SIGMA * 2 ** (index - 1))
    return finer - _blur(plane, FIRST_SIGMA * 2**index)


def _blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian, or for wide ones two box filters of the same variance, whose cost does not grow with the width."""
    if sigma < 1.5:
        return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    side = int(np.sqrt(6 * sigma * sigma + 1)) | 1
    return cv2.blur(cv2.blur(plane, (side, side)), (side, side))


def _noise(seed: bytes, height: int, width: int) -> np.ndarray:
    rows, columns = min(height, LARGEST_NOISE), min(width, LARGEST_NOISE)
    drawn = keyed_normal(seed, GRAIN_LABEL, (rows, columns))
    return np.tile(drawn, (-(-height // rows), -(-width // columns)))[:height, :width]


def _robust_std(values: np.ndarray) -> float:
    """Standard deviation of the bulk: edges and lashes are outliers to it, skin texture and sensor noise are not."""
    return 1.4826 * float(np.median(np.abs(values[:: 1 + len(values) // ENOUGH])))


@dataclass(frozen=True)
class SeamMeasure:
    """A seam against the same edge of the original; ratios near 1 mean that nothing shows.

    Attributes:
        step: mean brightness step across the mask's edge, from where the patch is opaque to where it ends, over the original's.
        gradient: mean gradient along the edge's normal inside the fading rim, over the original's.
        grain: residual of the finest octave inside the face over the original's.
        sharpness: variation of the first three octaves inside the face over the original's.
    """

    step: float
    gradient: float
    grain: float
    sharpness: float


def measure_seam(original: np.ndarray, composite: np.ndarray, patch: Patch) -> SeamMeasure:
    """Compare a composite with its original along one patch's edge and inside it.

    Args:
        original, composite: (height, width, 3) uint8 RGB.
    Raises:
        ValueError: the patch has no fading rim or no opaque part.
    """
    height, width = patch.alpha.shape
    window = (slice(patch.y, patch.y + height), slice(patch.x, patch.x + width))
    before, after = _luma(original[window]), _luma(composite[window])
    rim, inside = (patch.alpha > 0.02) & (patch.alpha < 0.98), patch.alpha >= INSIDE
    middle = (patch.alpha > 0.4) & (patch.alpha < 0.6)
    if not middle.any() or not inside.any():
        raise ValueError("the patch has no fading rim or no opaque part to measure")
    normal_x, normal_y = _gradient(cv2.GaussianBlur(patch.alpha, (0, 0), 1.0))
    length = np.maximum(np.hypot(normal_x, normal_y), 1e-6)
    normal_x, normal_y = normal_x / length, normal_y / length
    # From the rim's middle, alpha falls from 1 to 0 over about 1.5 / its steepest slope.
    reach = np.minimum(0.75 / length, max(height, width) / 4)[middle]
    rows, columns = np.nonzero(middle)
    shift_x, shift_y = normal_x[middle] * reach, normal_y[middle] * reach

    def step(plane: np.ndarray) -> float:
        smooth = cv2.GaussianBlur(plane, (0, 0), 1.5)
        inner = _sample(smooth, columns + shift_x, rows + shift_y)
        return float(np.abs(inner - _sample(smooth, columns - shift_x, rows - shift_y)).mean())

    def gradient(plane: np.ndarray) -> float:
        along_x, along_y = _gradient(cv2.GaussianBlur(plane, (0, 0), 1.0))
        return float(np.abs(along_x * normal_x + along_y * normal_y)[rim].mean())

    grain = [_robust_std(_octave(plane, 0)[inside]) for plane in (after, before)]
    sharpness = [float((plane - _blur(plane, FIRST_SIGMA * 4))[inside].std()) for plane in (after, before)]
    return SeamMeasure(
        step(after) / max(step(before), 0.5),
        gradient(after) / max(gradient(before), 0.1),
        grain[0] / max(grain[1], 0.1),
        sharpness[0] / max(sharpness[1], 0.1),
    )


def _sample(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear values at (n,) positions, clamped to the plane."""
    return cv2.remap(
        plane, x.astype(np.float32)[None], y.astype(np.float32)[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _gradient(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences, (d/dx, d/dy)."""
    down, right = np.gradient(plane)
    return right, down

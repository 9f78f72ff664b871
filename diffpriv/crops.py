"""Crops as arrays of pixels and as the tensors that models take."""

from collections.abc import Sequence

import numpy as np
import torch


def to_tensor(crops: Sequence[np.ndarray] | np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """n crops (h, w, 3), uint8 RGB -> (n, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(list(crops))).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(crops: torch.Tensor) -> np.ndarray:
    """(n, 3, h, w), about [-1, 1], clamped to it -> (n, h, w, 3) uint8."""
    return ((crops.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

"""Inverse Haar wavelet transform: four bands of half the size -> one map. Pure; differentiable.

Source: Haar's orthogonal wavelet, as MobileStyleGAN (Belousov 2021, section 3.1) upsamples with it. Written as additions and
interleaving, since transposed convolutions with two taps are slow on CPUs.
"""

import torch


def inverse_haar(bands: torch.Tensor) -> torch.Tensor:
    """(batch, 4 c, h, w) -> (batch, c, 2 h, 2 w).

    Args:
        bands: the first c channels are the averages; then, for each of the c maps, its differences between rows, between
            columns, and on the diagonal.
    """
    batch, channels, height, width = bands.shape
    count = channels // 4
    last = bands.permute(0, 2, 3, 1) * 0.5  # channels last, as the networks around it compute
    low = last[..., :count]
    rows, columns, diagonal = last[..., count:].unflatten(-1, (count, 3)).unbind(-1)
    upper, lower = low + rows, low - rows
    right, left = columns + diagonal, columns - diagonal
    # Each of the four pixels of a block is the average plus or minus the three differences.
    pixels = (upper + right, upper - right, lower + left, lower - left)
    whole = torch.stack([torch.stack(pixels[:2], -2), torch.stack(pixels[2:], -2)], 2)  # (batch, h, 2, w, 2, count)
    return whole.reshape(batch, 2 * height, 2 * width, count).permute(0, 3, 1, 2)

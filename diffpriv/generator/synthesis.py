"""Synthesis network: style code -> picture of a head, RGB (Belousov 2021, MobileStyleGAN, arXiv 2104.04767, section 3).

Seven levels of 8 to 512 px features; each: modulate, inverse Haar transform up, then twice modulate, depthwise 3 x 3,
pointwise, noise, bias, leaky rectifier. Last, a modulated 1 x 1 to twelve wavelet bands and one more inverse transform: 1024
px. A modulation multiplies each channel by a linear function of the level's style; the weights are stored demodulated, and the
noise is a fixed picture, so that a code gives one picture. Pure, differentiable; batched.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.generator.mapping import SLOPE
from diffpriv.generator.wavelet import inverse_haar

CHANNELS = (512, 512, 512, 512, 256, 128, 64)  # after each level
FIRST_SIDE = 4


@dataclass(frozen=True, eq=False)
class Features:
    """What a level has drawn: hidden (batch, channels, side, side), under the codes of the whole picture."""

    hidden: torch.Tensor
    level: int  # how many of the seven levels have been drawn


class ModulatedConvolution(nn.Module):
    """Modulate, depthwise 3 x 3, pointwise, fixed noise, bias, leaky rectifier.

    A channel's factor commutes with its depthwise kernel, so it multiplies the pointwise weights instead of the map.
    """

    noise: torch.Tensor

    def __init__(self, style_dim: int, before: int, channels: int, side: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, before)
        self.depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
        self.pointwise = nn.Linear(before, channels)
        self.register_buffer("noise", torch.zeros(1, 1, side, side))

    def forward(self, hidden: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        weight = self.pointwise.weight * self.modulation(style)[:, None]  # (batch, channels, before)
        # Channels last: a depthwise convolution takes a sixth of the time, and the pointwise one is a matrix product.
        rows = self.depthwise(hidden.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1).flatten(1, 2)
        added = self.noise.flatten()[:, None] + self.pointwise.bias
        mixed = _rectified(torch.baddbmm(added.expand(len(rows), -1, -1), rows, weight.transpose(1, 2)))
        return mixed.unflatten(1, hidden.shape[2:]).permute(0, 3, 1, 2)


class _First(nn.Module):
    """Modulate, full 3 x 3, fixed noise, bias, leaky rectifier."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, channels)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.register_buffer("noise", torch.zeros(1, 1, FIRST_SIDE, FIRST_SIDE))

    def forward(self, hidden: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return _rectified(self.mix(_modulated(hidden, self.modulation, style)) + self.noise)


def _modulated(hidden: torch.Tensor, modulation: nn.Linear, style: torch.Tensor) -> torch.Tensor:
    """(batch, channels, h, w) times a linear function of the style, channel by channel."""
    return hidden * modulation(style)[:, :, None, None]


def _rectified(hidden: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(hidden, SLOPE, inplace=not torch.is_grad_enabled())


class _Level(nn.Module):
    """Twice the size: modulated inverse Haar transform, then two convolutions."""

    def __init__(self, style_dim: int, before: int, channels: int, side: int) -> None:
        super().__init__()
        self.up = nn.Linear(style_dim, before)
        self.conv1 = ModulatedConvolution(style_dim, before // 4, channels, side)
        self.conv2 = ModulatedConvolution(style_dim, channels, channels, side)

    def forward(self, hidden: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        hidden = inverse_haar(_modulated(hidden, self.up, style))
        return self.conv2(self.conv1(hidden, style), style)


class SynthesisNetwork(ModelMixin, ConfigMixin):
    """Args:
    style_dim: length of each level's style.
    channels: after each level; the network's own picture has 4 * 2 ** (levels + 1) pixels a side.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, style_dim: int = 512, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1, channels[0], FIRST_SIDE, FIRST_SIDE))
        self.first = _First(style_dim, channels[0])
        widths = [channels[0], *channels]
        self.levels = nn.ModuleList(
            [_Level(style_dim, widths[i], widths[i + 1], FIRST_SIDE * 2 ** (i + 1)) for i in range(len(channels))]
        )
        self.to_picture = nn.Linear(style_dim, widths[-1])
        self.bands = nn.Conv2d(widths[-1], 12, 1)

    @property
    def code_levels(self) -> int:
        """How many styles a code has: that of the first 4 px map, and one a level."""
        return len(self.levels) + 1

    @property
    def side(self) -> int:
        """Of the whole picture, in pixels."""
        return int(FIRST_SIDE * 2 ** (len(self.levels) + 1))

    def features(self, code: torch.Tensor, levels: int, start: Features | None = None) -> Features:
        """Draw the first `levels` levels only: 4 * 2 ** levels px.

        Args:
            code: (batch, code_levels, style_dim).
            start: features of the same codes to go on from.
        """
        if start is None:
            constant = self.constant.expand(len(code), -1, -1, -1)
            start = Features(self.first(constant, code[:, 0]), 0)
        hidden = start.hidden
        for number in range(start.level, levels):
            hidden = self.levels[number](hidden, code[:, number + 1])
        return Features(hidden, levels)

    def forward(self, code: torch.Tensor, start: Features | None = None) -> torch.Tensor:
        """(batch, code_levels, style_dim) -> (batch, 3, side, side) RGB, about [-1, 1], not clamped."""
        hidden: Any = self.features(code, len(self.levels), start).hidden
        return inverse_haar(self.bands(_modulated(hidden, self.to_picture, code[:, -1])))

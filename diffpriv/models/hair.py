"""Hair segmentation: which pixels of a head's square are hair.

A small U-net (Ronneberger et al. 2015) of depthwise separable convolutions, trained by `diffpriv.training.hair` on photos and
drawn heads that a larger network labelled. It reads the upright square of `faces.head_view`, 128 px. Pure; deterministic.
"""

from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional


class _Block(nn.Sequential):
    def __init__(self, before: int, channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, before, 5, stride, padding=2, groups=before),
            nn.Conv2d(before, channels, 1),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
        )


class HairNet(ModelMixin, ConfigMixin):
    """Args:
    widths: channels at 64, 32, 16 and 8 px.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 160)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)
        self.down = nn.ModuleList([nn.Sequential(_Block(one, two, 2), _Block(two, two)) for one, two in pairwise(widths)])
        up = list(pairwise(widths[::-1]))
        self.up = nn.ModuleList([nn.Sequential(_Block(one + two, two), _Block(two, two)) for one, two in up])
        self.out = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, square: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 128, 128) RGB in [-1, 1] -> (batch, 128, 128) log odds of hair."""
        hidden = functional.silu(self.stem(functional.pixel_unshuffle(square, 2)))
        passed = [hidden]
        for block in self.down:
            hidden = block(hidden)
            passed.append(hidden)
        for block, beside in zip(self.up, passed[-2::-1], strict=True):
            hidden = functional.interpolate(hidden, scale_factor=2, mode="nearest")
            hidden = block(torch.cat([hidden, beside], 1))
        return functional.pixel_shuffle(self.out(hidden), 2)[:, 0]

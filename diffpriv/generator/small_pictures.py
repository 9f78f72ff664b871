"""Small pictures from the middle of the synthesis network: 128, 256 or 512 px after its level of 64, 128 or 256 px.

The whole network spends two thirds of its time on the last two levels, whose detail a small face cannot hold. A head reads one
level's features instead: a linear map, mended by a modulated 1 x 1 and two 3 x 3 convolutions, to twelve wavelet bands.
Trained on the network's own pictures, averaged down (`diffpriv.training.small_pictures`). Pure; differentiable.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.generator.mapping import SLOPE
from diffpriv.generator.synthesis import CHANNELS, FIRST_SIDE, SynthesisNetwork
from diffpriv.generator.wavelet import inverse_haar


class _Head(nn.Module):
    def __init__(self, style_dim: int, channels: int, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, channels)
        self.mix = nn.Conv2d(channels, width, 1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 12, 3, padding=1)
        self.straight = nn.Conv2d(channels, 12, 1)  # most of a picture is linear in the features; the rest mends it

    def forward(self, hidden: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        mixed = functional.leaky_relu(self.mix(hidden * (1 + self.modulation(style))[:, :, None, None]), SLOPE)
        mended = self.conv2(functional.leaky_relu(self.conv1(mixed), SLOPE))
        return inverse_haar(self.straight(hidden) + mended)


class SmallPictures(ModelMixin, ConfigMixin):
    """One head a level.

    Args:
        levels: of the synthesis network, after which a head stands.
        width: channels inside a head.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, levels: Sequence[int] = (4, 5, 6), width: int = 64, style_dim: int = 512) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({str(level): _Head(style_dim, CHANNELS[level - 1], width) for level in levels})

    @staticmethod
    def side_after(level: int) -> int:
        """Of the picture that a head draws, in pixels."""
        return int(FIRST_SIDE * 2 ** (level + 1))

    def forward(self, hidden: torch.Tensor, style: torch.Tensor, level: int) -> torch.Tensor:
        """Picture of a level's features.

        Args:
            hidden: (batch, channels, side, side). style: (batch, style_dim), of the level. level: as in `levels`.
        Returns:
            (batch, 3, 2 side, 2 side) RGB, about [-1, 1], not clamped.
        """
        return self.heads[str(level)](hidden, style)


def draw_picture(synthesis: SynthesisNetwork, small: SmallPictures, styles: torch.Tensor, side: int) -> torch.Tensor:
    """The cheapest picture of at least `side` pixels: a head's, or the network's own.

    Args:
        styles: (batch, levels, style_dim), see `codes.level_styles`.
    Returns:
        (batch, 3, s, s) RGB, about [-1, 1], not clamped; differentiable.
    """
    for level in sorted(int(name) for name in small.heads):
        if small.side_after(level) >= side:
            hidden = synthesis.features(styles, level).hidden
            return small(hidden, styles[:, level], level)
    return synthesis(styles)

"""Denoiser of style codes: predicts v of a noisy code, told where features are to be and of which looks.

Residual blocks with adaptive normalisation (Peebles and Xie 2023) over the code's two styles laid side by side;
v-parametrisation (Salimans and Ho 2022). 5 million parameters, a millisecond a step, so that many steps cost less than one
drawing. Pure.
"""

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.faces.appearance import TOLD
from diffpriv.generator.codes import CODE_STYLES
from diffpriv.generator.traits import TRAITS

TIME_DIM = 128


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, 1)
        changed = self.norm(hidden) * (1 + scale) + shift
        return hidden + gate * self.outer(functional.silu(self.inner(changed)))


class StyleDenoiser(ModelMixin, ConfigMixin):
    """Args:
    style_dim: length of each style of a code. width, depth: of the network.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, style_dim: int = 512, width: int = 512, depth: int = 2) -> None:
        super().__init__()
        self.into = nn.Linear(CODE_STYLES * style_dim, width)
        self.time = nn.Sequential(nn.Linear(TIME_DIM, width), nn.SiLU(), nn.Linear(width, width))
        # The last two inputs say whether places and looks are told; what is not told is zero.
        self.told = nn.Sequential(nn.Linear(len(TOLD) + len(TRAITS) + 2, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList([_Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, CODE_STYLES * style_dim)
        self.skip = nn.Linear(width, CODE_STYLES * style_dim)  # a factor a number, from the time alone

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor, places: torch.Tensor | None, looks: torch.Tensor | None
    ) -> torch.Tensor:
        """The predicted v, (batch, 2, style_dim).

        Args:
            noisy: (batch, 2, style_dim), of standard codes. timestep: (batch,), 0 to 999.
            places: (batch, len(TOLD)), standardised. looks: (batch, len(TRAITS)), standardised. None is not told; a row of
                NaN is not told for that code alone.
        """
        told = torch.cat([_filled(places, len(TOLD), noisy), _filled(looks, len(TRAITS), noisy)], 1)
        time = functional.silu(self.time(_waves(timestep)))
        condition = functional.silu(time + self.told(_with_flags(told)))
        flat = noisy.flatten(1)
        hidden = self.into(flat)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return (self.out(self.norm(hidden)) + self.skip(time) * flat).view_as(noisy)


def _filled(told: torch.Tensor | None, size: int, noisy: torch.Tensor) -> torch.Tensor:
    return torch.full((len(noisy), size), math.nan, device=noisy.device) if told is None else told


def _with_flags(told: torch.Tensor) -> torch.Tensor:
    known = ~told.isnan()
    return torch.cat([told.nan_to_num(0.0), known[:, :1].float(), known[:, -1:].float()], 1)


def _waves(timestep: torch.Tensor) -> torch.Tensor:
    """(batch,) -> (batch, TIME_DIM) sines and cosines of the time at frequencies from 1 to 1 / 10,000."""
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(TIME_DIM // 2, device=timestep.device) / (TIME_DIM // 2))
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)

"""Surrogate of drawing and looking: what a style code's picture will look like, without drawing it.

One small network from the code to the numbers of `traits.READ` and to the recogniser's embedding. Its gradient guides sampling
at every step for the cost of a matrix product; the drawing itself is looked at once. Differentiable; pure.
"""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.generator.codes import CODE_STYLES
from diffpriv.generator.traits import READ


@dataclass(frozen=True, eq=False)
class Reading:
    """numbers: (batch, len(READ)), in their own units. embedding: (batch, dim) of unit length."""

    numbers: torch.Tensor
    embedding: torch.Tensor


class StyleReader(ModelMixin, ConfigMixin):
    """A linear map plus a two-layer network, since the numbers are nearly linear in the code.

    Args:
        style_dim: length of each style of a code. width: of the hidden layers. embedding_dim: of the recogniser.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, style_dim: int = 512, width: int = 640, embedding_dim: int = 128) -> None:
        super().__init__()
        inputs, outputs = CODE_STYLES * style_dim, len(READ) + embedding_dim
        self.linear = nn.Linear(inputs, outputs)
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)
        self.register_buffer("code_mean", torch.zeros(CODE_STYLES, style_dim))
        self.register_buffer("code_scale", torch.ones(CODE_STYLES, style_dim))
        self.register_buffer("number_mean", torch.zeros(len(READ)))
        self.register_buffer("number_scale", torch.ones(len(READ)))
        self.register_buffer("embedding_mean", torch.zeros(embedding_dim))

    def standard(self, code: torch.Tensor) -> torch.Tensor:
        """(batch, 2, style_dim) of the generator -> the same, each number with mean 0 and deviation 1."""
        return (code - self.code_mean) / self.code_scale

    def forward(self, code: torch.Tensor) -> Reading:
        """code: (batch, 2, style_dim), of the generator."""
        flat = self.standard(code).flatten(1)
        hidden = functional.silu(self.second(functional.silu(self.first(flat))))
        out = self.linear(flat) + self.last(hidden)
        numbers = out[:, : len(READ)] * self.number_scale + self.number_mean
        embedding = out[:, len(READ) :] * 0.1 + self.embedding_mean
        return Reading(numbers, functional.normalize(embedding, dim=1))

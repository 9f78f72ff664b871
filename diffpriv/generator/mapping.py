"""Mapping network: normal numbers -> a style (Karras et al. 2019, StyleGAN, section 2, as distilled by Belousov 2021).

The distribution of styles is known exactly: it is what this network makes of a standard normal. Pure: no files, no random
state.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

SLOPE = 0.2  # of leaky rectifiers, here and in the synthesis


class MappingNetwork(ModelMixin, ConfigMixin):
    """Args:
    dim: length of the normal numbers and of the style.
    depth: linear layers, each followed by a leaky rectifier.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, dim: int = 512, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, normal: torch.Tensor, truncation: float = 1.0) -> torch.Tensor:
        """(batch, dim) standard normal -> (batch, dim) styles.

        Args:
            truncation: how far from the mean style, 1 is all the way; less is more typical and less varied.
        """
        hidden = normal * torch.rsqrt(normal.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            hidden = functional.leaky_relu(layer(hidden), SLOPE)
        return self.mean + truncation * (hidden - self.mean)

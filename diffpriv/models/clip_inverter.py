"""MSI of the Stable Diffusion profile: five depths of a frozen CLIP vision tower -> key-E -> stage tokens of the UNet.

He et al. 2023 (Diff-Privacy), section 3.2: hidden states of CLIP ViT-L/14 at layers 3, 7, 11, 15 and the last. The released
code fits its module for every picture; this one is trained once over many faces (`diffpriv.training.clip_inverter`). The tower
sees what it was trained on: 224 px, pixels normalised by CLIP's mean and deviation. It is a component of its own in the model
folder, from transformers (extra `sd`); this module needs only torch.
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.models.msi import InverterOutput, StageEmbeddings

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
LAYERS = (3, 7, 11, 15, -1)


def clip_features(tower: Any, crops: torch.Tensor, layers: tuple[int, ...] = LAYERS) -> torch.Tensor:
    """What the tower sees at each layer: its class token beside the mean of its patches, (n, layers, 2 * width), float32.

    Args:
        tower: transformers' CLIPVisionModel. crops: (n, 3, size, size) in [-1, 1], any size.
    """
    size = tower.config.image_size
    resized = functional.interpolate(crops, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    mean, deviation = (torch.tensor(values).to(crops).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_DEVIATION))
    pixels = ((resized + 1) / 2 - mean) / deviation
    hidden = tower(pixel_values=pixels.to(tower.dtype), output_hidden_states=True).hidden_states
    return torch.stack([torch.cat([hidden[layer][:, 0], hidden[layer][:, 1:].mean(1)], 1).float() for layer in layers], 1)


class ClipInverter(StageEmbeddings, ModelMixin, ConfigMixin):
    """CLIP features at several depths -> key-E -> stage tokens for the denoiser's cross-attention.

    Args:
        width: of the tower's hidden states. layers: which of them, from the picture up.
        dim: numbers per depth in key-E; 5 x 320 are 1.6 KB.
        tokens, token_dim: cross-attention tokens per stage, and the UNet's `cross_attention_dim`.
        prior_rank: see `MultiScaleInverter`.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        width: int = 1024,
        layers: tuple[int, ...] = LAYERS,
        dim: int = 320,
        tokens: int = 8,
        token_dim: int = 768,
        prior_rank: int = 64,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(2 * width, dim) for _ in layers])
        self.add_stages(len(layers), dim, tokens, token_dim, prior_rank)
        self.layers = tuple(layers)

    def forward(self, seen: torch.Tensor) -> InverterOutput:
        """seen: of `clip_features`, (batch, layers, 2 * width)."""
        seen = functional.layer_norm(seen, seen.shape[-1:])
        features = [functional.layer_norm(head(seen[:, index]), (self.dim,)) for index, head in enumerate(self.heads)]
        return InverterOutput(torch.stack(features, 1))

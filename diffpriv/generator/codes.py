"""Style codes: what a face's latent is in style space, and how it becomes the styles of the synthesis network's levels.

A code has two styles, (2, 512): *shape* drives the levels up to 32 px (pose, features, hair), *colour* those from 64 px on
(light, tone, texture). Two styles instead of one a level: enough to change a face's light without changing its owner, and few
enough numbers that networks learn from thousands of pictures what a code will look like. Pure.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from diffpriv.generator.mapping import SLOPE, MappingNetwork

SHAPE_LEVELS = 4  # of 4, 8, 16 and 32 px
COLOUR_LEVELS = 4  # of 64, 128, 256 and 512 px
CODE_STYLES = 2


def level_styles(code: torch.Tensor) -> torch.Tensor:
    """(batch, 2, 512) -> (batch, 8, 512), what `SynthesisNetwork` takes."""
    repeats = torch.tensor([SHAPE_LEVELS, COLOUR_LEVELS], device=code.device)
    return code.repeat_interleave(repeats, 1)


def draw_codes(mapping: MappingNetwork, normal: torch.Tensor, truncation: float | torch.Tensor) -> torch.Tensor:
    """Codes of the generator's own distribution, (batch, 2, 512).

    Args:
        normal: (batch, 2, 512) standard normal; where both styles' numbers are equal, the picture is one that the generator was
            trained to draw, else its light is another's.
        truncation: see `MappingNetwork.forward`; one number, or (batch, 1).
    """
    batch, styles, dim = normal.shape
    mapped = mapping(normal.reshape(-1, dim)).unflatten(0, (batch, styles))
    factor = truncation[..., None] if isinstance(truncation, torch.Tensor) else truncation
    return mapping.mean + factor * (mapped - mapping.mean)


class StyleSpace(ModelMixin, ConfigMixin):
    """Coordinates of a style in which the generator's own styles are about standard normal, so that diffusion starts at home.

    The mapping's last leaky rectifier is undone and the result whitened (Zhu et al. 2020, arXiv 2012.09036, space P_N).

    Args:
        dim: of a style.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("basis", torch.eye(dim))  # rows: principal directions times their deviations

    @torch.no_grad()
    def fit(self, styles: torch.Tensor) -> None:
        """Mean and basis of (n, dim) styles."""
        straight = _straight(styles)
        self.mean.copy_(straight.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(straight.T))
        self.basis.copy_((vectors * values.clamp(min=1e-6).sqrt()).T.flip(0))

    def latent(self, code: torch.Tensor) -> torch.Tensor:
        """(batch, 2, dim) code -> the same shape, about standard normal."""
        squared = self.basis.square().sum(1)
        return (_straight(code) - self.mean) @ (self.basis / squared[:, None]).T

    def code(self, latent: torch.Tensor) -> torch.Tensor:
        """The inverse of `latent`; differentiable."""
        straight = latent @ self.basis + self.mean
        return torch.where(straight < 0, SLOPE * straight, straight)


def _straight(styles: torch.Tensor) -> torch.Tensor:
    return torch.where(styles < 0, styles / SLOPE, styles)

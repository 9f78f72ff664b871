"""Multi-scale inversion (MSI), amortised: one forward pass turns a crop into its conditional embeddings, key-E.

He et al. 2023 (Diff-Privacy), section 3.2, fit a multi-scale inversion module anew for every picture. Here it is trained once
over many faces together with the denoiser: features at three depths of a small convolutional encoder are normalised and
quantised (this is key-E, 3 x 160 signed bytes), then mixed by a learned table into 10 stage embeddings. Stage b conditions
the timesteps [100 b, 100 (b + 1)): shallow features weigh more at low noise, deep ones at high noise.
"""

import itertools
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.models.autoencoder import ResidualBlock
from diffpriv.scenes import scene_size

STAGES = 10
DEPTHS = 3
SCENE_RIDGE = 20.0  # against the sum over some 9,000 faces
QUANTISATION_STEP = 1 / 32  # of a unit-variance feature; int8 then spans about four standard deviations


@dataclass
class InverterOutput:
    """features: (batch, depths, dim), zero mean and unit variance per depth; what `quantise` turns into key-E."""

    features: torch.Tensor


class StageEmbeddings(nn.Module):
    """From features at several depths to the 10 stage embeddings: what every kind of MSI shares."""

    dim: int
    tokens: int
    token_dim: int
    prior_mean: torch.Tensor
    prior_basis: torch.Tensor
    scene_mean: torch.Tensor
    scene_map: torch.Tensor
    scene_basis: torch.Tensor

    def add_stages(self, depths: int, dim: int, tokens: int, token_dim: int, prior_rank: int, scene_dim: int = 0) -> None:
        """The parameters, once the encoder's are there."""
        # Stage b looks at a depth with weight falling with their distance: shallow for low noise, deep for high noise.
        stage, depth = torch.arange(STAGES)[:, None] / (STAGES - 1), torch.arange(depths)[None] / (depths - 1)
        preference = 1 - (stage - depth).abs()
        self.stage_table = nn.Parameter(preference[:, :, None].repeat(1, 1, dim))
        self.project = nn.Linear(dim, tokens * token_dim)
        self.stage_bias = nn.Parameter(torch.randn(STAGES, tokens, token_dim) * 0.1)
        self.null_tokens = nn.Parameter(torch.randn(tokens, token_dim) * 0.1)
        self.register_buffer("prior_mean", torch.zeros(depths, dim))
        self.register_buffer("prior_basis", torch.zeros(prior_rank, depths, dim))
        if scene_dim:
            self.register_buffer("scene_mean", torch.zeros(scene_dim))
            self.register_buffer("scene_map", torch.zeros(scene_dim, depths, dim))
            self.register_buffer("scene_basis", torch.zeros(prior_rank, depths, dim))
        self.dim, self.tokens, self.token_dim = dim, tokens, token_dim

    @torch.no_grad()
    def fit_prior(self, features: torch.Tensor, scenes: torch.Tensor | None = None) -> None:
        """Learn what features of people look like together, (n, depths, dim): a Gaussian, and one given the scene.

        Principal component analysis; a basis holds directions times standard deviations, so no person's features. What scenes
        (n, scene_dim) tell is taken out first, by ridge regression (Hoerl and Kennard 1970).
        """
        flat = features.flatten(1).float()
        mean = flat.mean(0)
        self.prior_mean.copy_(mean.view_as(self.prior_mean))
        _fill_basis(self.prior_basis, flat - mean)
        if scenes is not None:
            centre = scenes.float().mean(0)
            inputs, targets = scenes.float() - centre, flat - mean
            told = torch.linalg.solve(inputs.T @ inputs + SCENE_RIDGE * torch.eye(len(centre)), inputs.T @ targets)
            self.scene_mean.copy_(centre)
            self.scene_map.copy_(told.view_as(self.scene_map))
            _fill_basis(self.scene_basis, targets - inputs @ told)

    @property
    def fitted(self) -> bool:
        """False as long as features of nobody would all be the same."""
        return bool(self.prior_basis.any()) and ("scene_basis" not in self._buffers or bool(self.scene_basis.any()))

    def features_of_nobody(self, normal: torch.Tensor, scenes: torch.Tensor | None = None) -> torch.Tensor:
        """Features drawn from the prior, (batch, depths, dim).

        Args:
            normal: standard normal numbers, (batch, prior_rank).
            scenes: (batch, scene_dim), see `diffpriv.scenes`: what the features are to go with. None is anything.
        """
        if scenes is None:
            return self.prior_mean + torch.einsum("br,rdk->bdk", normal, self.prior_basis)
        told = torch.einsum("bs,sdk->bdk", scenes - self.scene_mean, self.scene_map)
        return self.prior_mean + told + torch.einsum("br,rdk->bdk", normal, self.scene_basis)

    @staticmethod
    def quantise(features: torch.Tensor) -> torch.Tensor:
        """key-E as it is stored: (batch, depths, dim) int8."""
        return (features / QUANTISATION_STEP).round().clamp(-127, 127).to(torch.int8)

    @staticmethod
    def dequantise(stored: torch.Tensor) -> torch.Tensor:
        return stored.float() * QUANTISATION_STEP

    def stage_tokens(self, features: torch.Tensor) -> torch.Tensor:
        """All 10 stage embeddings, (batch, 10, tokens, token_dim), from features (batch, depths, dim)."""
        mixed = torch.einsum("bdk,sdk->bsk", features, self.stage_table)
        mixed = functional.layer_norm(mixed, mixed.shape[-1:])
        tokens = self.project(mixed).unflatten(-1, (self.tokens, self.token_dim))
        return tokens + self.stage_bias

    def null_stage_tokens(self, batch: int) -> torch.Tensor:
        """What the denoiser sees when it is told nothing about the face, (batch, 10, tokens, token_dim)."""
        return self.null_tokens.expand(batch, STAGES, -1, -1)


def _fill_basis(basis: torch.Tensor, centred: torch.Tensor) -> None:
    """The principal directions of (n, numbers), times their standard deviations, into (rank, depths, dim)."""
    _, deviations, directions = torch.linalg.svd(centred, full_matrices=False)
    scaled = (directions * (deviations / len(centred) ** 0.5)[:, None])[: len(basis)]
    basis.zero_()  # fewer directions than there is room for where the faces are few
    basis[: len(scaled)] = scaled.view(len(scaled), *basis.shape[1:])


class MultiScaleInverter(StageEmbeddings, ModelMixin, ConfigMixin):
    """Crop latent -> key-E -> stage tokens for the denoiser's cross-attention.

    Args:
        latent_channels: of the autoencoder, input (batch, latent_channels, 16, 16).
        channels: widths at 16 x 16, 8 x 8 and 4 x 4.
        dim: numbers per depth in key-E.
        tokens, token_dim: cross-attention tokens per stage and their width.
        prior_rank: directions of the features' spread over people, from which features of nobody are drawn.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        channels: tuple[int, int, int] = (64, 96, 128),
        dim: int = 160,
        tokens: int = 4,
        token_dim: int = 128,
        prior_rank: int = 64,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(latent_channels, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(width) for width in channels])
        self.downs = nn.ModuleList(
            [nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in itertools.pairwise(channels)]
        )
        self.heads = nn.ModuleList([nn.Linear(width * 16, dim) for width in channels])
        self.add_stages(DEPTHS, dim, tokens, token_dim, prior_rank, scene_size(latent_channels))

    def forward(self, latent: torch.Tensor) -> InverterOutput:
        hidden = self.stem(latent)
        features = []
        for index, (block, head) in enumerate(zip(self.blocks, self.heads, strict=True)):
            if index:
                hidden = self.downs[index - 1](hidden)
            hidden = block(hidden)
            pooled = functional.adaptive_avg_pool2d(functional.silu(hidden), 4).flatten(1)
            features.append(functional.layer_norm(head(pooled), (self.dim,)))
        return InverterOutput(torch.stack(features, 1))


def stage_of(timestep: torch.Tensor | int) -> torch.Tensor | int:
    """Which of the 10 embeddings conditions this timestep: floor(10 t / 1000)."""
    return timestep * STAGES // 1000

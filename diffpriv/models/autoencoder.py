"""The builtin autoencoder: 128 px face crop <-> an 8 x 16 x 16 latent and its detail, all convolutions at 32 x 32 and below.

A 4 x 4 pixel-unshuffle takes the place of the first two down-sampling stages of an `AutoencoderKL`, which makes it some
ten times cheaper on a CPU. Trained with a rotation- and scale-equivariance term (after EQ-VAE, Kouzelis et al. 2025), which
smooths the latent space and makes it easier for the diffusion model to learn.
The latent is small so that a small denoiser can model it, and too small for everything in a sharp photo. What it leaves out
is in a second code, the detail, which no denoiser has to make: with it the decoder gives the photo back, without it the
decoder, trained against a discriminator (`diffpriv.training.decoder`), imagines the texture of a face that never had any.
Deterministic: one latent and one detail per crop, no sampling.
"""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

DETAIL_LIMIT = 8  # the detail is whole numbers of -8 to 8, some 4 bits each


@dataclass
class AutoencoderOutput:
    """latent: (batch, latent_channels, height / 8, width / 8), about zero mean and unit variance per channel."""

    latent: torch.Tensor


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3 x 3 convolution, twice, around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(16, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(16, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        update = self.conv1(functional.silu(self.norm1(hidden)))
        return hidden + self.conv2(functional.silu(self.norm2(update)))


class FaceAutoencoder(ModelMixin, ConfigMixin):
    """Encoder and decoder with a fixed latent normalisation, in diffusers' folder format.

    Args:
        latent_channels: channels of the latent. detail_channels: of the detail, a multiple of 4; 0 is none.
        channels: (at 32 x 32, at 16 x 16) widths for a 128 px crop. detail_width: of the detail's encoder at 32 x 32.
        encoder_blocks, decoder_blocks: residual blocks at each of the two resolutions.
        latent_mean, latent_std: per channel, measured on the training crops; `encode` subtracts and divides.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        channels: tuple[int, int] = (64, 160),
        encoder_blocks: int = 1,
        decoder_blocks: int = 2,
        patch: int = 4,
        latent_mean: list[float] | None = None,
        latent_std: list[float] | None = None,
        detail_channels: int = 0,
        detail_width: int = 64,
    ) -> None:
        super().__init__()
        outer, inner = channels
        pixels = 3 * patch * patch
        self.patch = patch
        self.encoder = nn.Sequential(
            nn.Conv2d(pixels, outer, 3, padding=1),
            *[ResidualBlock(outer) for _ in range(encoder_blocks)],
            nn.Conv2d(outer, inner, 3, stride=2, padding=1),
            *[ResidualBlock(inner) for _ in range(encoder_blocks)],
            nn.Conv2d(inner, latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, inner, 3, padding=1),
            *[ResidualBlock(inner) for _ in range(decoder_blocks)],
            nn.Conv2d(inner, outer * 4, 3, padding=1),
            nn.PixelShuffle(2),
            *[ResidualBlock(outer) for _ in range(decoder_blocks)],
            nn.GroupNorm(16, outer),
            nn.SiLU(),
            nn.Conv2d(outer, pixels, 3, padding=1),
        )
        if detail_channels:
            self.texture = ResidualBlock(outer)  # of what is decoded without its detail
            self.detail_encoder = nn.Sequential(
                nn.Conv2d(pixels, detail_width, 3, padding=1),
                ResidualBlock(detail_width),
                nn.Conv2d(detail_width, 2 * detail_width, 3, stride=2, padding=1),
                ResidualBlock(2 * detail_width),
                nn.Conv2d(2 * detail_width, detail_channels, 1),
            )
            self.detail_inner = nn.Conv2d(detail_channels, inner, 3, padding=1)
            self.detail_outer = nn.Conv2d(detail_channels // 4, outer, 3, padding=1)
            self.detail_block = ResidualBlock(outer)
        mean = torch.tensor(latent_mean if latent_mean is not None else [0.0] * latent_channels)
        std = torch.tensor(latent_std if latent_std is not None else [1.0] * latent_channels)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)

    def encode_raw(self, crop: torch.Tensor) -> torch.Tensor:
        """The latent before normalisation; training needs it, everything else wants `encode`."""
        return self.encoder(functional.pixel_unshuffle(crop, self.patch))

    def encode(self, crop: torch.Tensor) -> AutoencoderOutput:
        """crop: (batch, 3, height, width) in [-1, 1], RGB, sides a multiple of 8."""
        return AutoencoderOutput((self.encode_raw(crop) - self.mean) / self.std)

    def encode_detail(self, crop: torch.Tensor) -> torch.Tensor | None:
        """What the latent leaves out, (batch, detail_channels, height / 8, width / 8) int8; None of an autoencoder without."""
        return self.encode_detail_raw(crop).round().to(torch.int8) if self.config["detail_channels"] else None

    def encode_detail_raw(self, crop: torch.Tensor) -> torch.Tensor:
        """The detail before it is rounded; training needs it."""
        return DETAIL_LIMIT * torch.tanh(self.detail_encoder(functional.pixel_unshuffle(crop, self.patch)))

    def decode(self, latent: torch.Tensor, detail: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, 3, height, width), about [-1, 1] and not clamped, so that guidance has a gradient everywhere.

        Args:
            detail: rounded or not; None imagines one.
        """
        at_32 = self.config["decoder_blocks"] + 3  # the first layer after the pixel-shuffle
        hidden = self.decoder[0](latent * self.std + self.mean)
        if detail is None:
            hidden = self.decoder[at_32:-3](self.decoder[1:at_32](hidden))
            hidden = self.texture(hidden) if self.config["detail_channels"] else hidden
        else:
            told = detail.to(latent.dtype) / DETAIL_LIMIT
            hidden = self.decoder[1:at_32](hidden + self.detail_inner(told))
            hidden = self.decoder[at_32:-3](hidden + self.detail_outer(functional.pixel_shuffle(told, 2)))
            hidden = self.detail_block(hidden)
        return functional.pixel_shuffle(self.decoder[-3:](hidden), self.patch)

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(crop).latent, self.encode_detail(crop))

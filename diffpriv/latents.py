"""Crops to latents and back, for every kind of autoencoder a model folder may hold.

Two kinds: our `FaceAutoencoder`, whose latents are normalised by its own statistics, and diffusers' `AutoencoderKL` (Stable
Diffusion), whose latents are the posterior's mode times `scaling_factor`. Both are deterministic.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL

from diffpriv.models.autoencoder import FaceAutoencoder

LATENT_SCALE = 8  # crop pixels per latent pixel, in both kinds


def encode_crops(vae: FaceAutoencoder | AutoencoderKL, crops: torch.Tensor) -> torch.Tensor:
    """(n, 3, s, s) in [-1, 1] -> (n, channels, s / 8, s / 8), float32, about unit variance."""
    if isinstance(vae, FaceAutoencoder):
        return vae.encode(crops).latent
    posterior: Any = vae.encode(crops.to(vae.dtype))
    return (posterior.latent_dist.mode() * vae.config["scaling_factor"]).float()


def encode_detail(vae: FaceAutoencoder | AutoencoderKL, crops: torch.Tensor) -> torch.Tensor | None:
    """What the latents leave out, see `FaceAutoencoder.encode_detail`; None of an autoencoder that has no such code."""
    return vae.encode_detail(crops) if isinstance(vae, FaceAutoencoder) else None


def decode_latents(
    vae: FaceAutoencoder | AutoencoderKL, latents: torch.Tensor, detail: torch.Tensor | None = None
) -> torch.Tensor:
    """The inverse: (n, 3, s, s), float32, about [-1, 1], not clamped. Differentiable.

    Args:
        detail: of these crops; None leaves it to the decoder's imagination.
    """
    if isinstance(vae, FaceAutoencoder):
        return vae.decode(latents, detail)
    decoded: Any = vae.decode((latents / vae.config["scaling_factor"]).to(vae.dtype))
    return decoded.sample.float()

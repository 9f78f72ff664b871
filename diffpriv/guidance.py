"""Energy guidance of stage 2: after a denoising step, move the latent down the gradient of an energy.

He et al. 2023 (Diff-Privacy), section 3.3.2: z ← z − λ · ∂E(x̂0)/∂ẑ0. The gradient runs through the decoder and the recogniser,
not the denoiser. Its length is normalised per face, so that λ is a share of the latent's RMS whatever the energy's scale, and
it acts inside the face region only.
"""

from collections.abc import Callable

import torch

Energy = Callable[[torch.Tensor], torch.Tensor]  # (batch, 3, 128, 128) in [-1, 1] -> (batch,)


def guidance_direction(clean: torch.Tensor, to_crop: Callable[[torch.Tensor], torch.Tensor], energy: Energy) -> torch.Tensor:
    """Gradient of the energy of the clean estimate, scaled to unit RMS per face; zero where the energy is flat.

    Args:
        clean: ẑ0, (batch, ...): spatial latents or style codes.
        to_crop: from there to what the energy looks at: decoder, and whatever else the viewer would see around the face.
    """
    with torch.enable_grad():
        leaf = clean.detach().requires_grad_(True)
        total = energy(to_crop(leaf)).sum()
        gradient = torch.autograd.grad(total, leaf)[0]
    rms = _rms(gradient)
    return torch.where(rms > 1e-12, gradient / rms.clamp(min=1e-12), torch.zeros_like(gradient))


def guided(
    state: torch.Tensor, direction: torch.Tensor, region: torch.Tensor | float, scale: torch.Tensor | float
) -> torch.Tensor:
    """state − λ · rms(state) · direction inside the region.

    Args:
        region: in [0, 1], (1, 1, 16, 16) for spatial latents; 1 for codes, which have no places.
        scale: λ, (batch, 1, …, 1) or one number.
    """
    return state - scale * _rms(state) * direction * region


def _rms(latent: torch.Tensor) -> torch.Tensor:
    """(batch, 1, …, 1)."""
    return latent.square().mean(tuple(range(1, latent.ndim)), keepdim=True).sqrt()

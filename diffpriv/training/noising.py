"""What trainings of a denoiser share: which timesteps a batch is trained at, and how noisy its latents are there.

Source: Ho et al. 2020 (DDPM), eq. 4. Pure: no files, no global random state.
"""

import torch

TIMESTEPS = 1000


def even_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) rising: one from each of `count` equal parts of the schedule, which varies less than independent draws."""
    return on_schedule((torch.arange(count) + torch.rand(count, generator=generator)) / count)


def on_schedule(share: torch.Tensor) -> torch.Tensor:
    """Timesteps at shares of the schedule in [0, 1]."""
    return (share * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


def coefficients(alphas: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(signal, spread) = sqrt(abar_t), sqrt(1 - abar_t), (n, 1, 1, 1) each.

    Args:
        alphas: abar of all timesteps. timestep: (n,).
    """
    alpha = alphas[timestep][:, None, None, None]
    return alpha.sqrt(), (1 - alpha).sqrt()

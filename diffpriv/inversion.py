"""Deterministic DDIM inversion with fixed-point refinement: crop latent -> noise map (key-I), and the way back.

Source: Song et al. 2021 (DDIM), eq. 12 solved for the noisier state; He et al. 2023 (Diff-Privacy), section 3.1. Each inverse
step is the implicit equation step(predict(z_t), t') = z_t'; it is solved by iteration from the explicit guess, which
converges because the schedule's steps are short against the denoiser's Lipschitz constant; where it does not within
`max_refinements`, the best iterate is kept and the residual says so.
Pure: no files, no engine, no global random state. Same input, same bits, on one device type, dtype and batch shape.
"""

from dataclasses import dataclass

import torch

from diffpriv.denoising import Denoiser, Surroundings


@dataclass(frozen=True)
class InversionOutput:
    noise_map: torch.Tensor  # (batch, 8, 16, 16), float32, about unit variance
    residual: torch.Tensor  # (batch,), RMS error of the implicit equation at its worst timestep
    unet_evaluations: int  # per face


def _rms(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().mean((1, 2, 3)).sqrt()


@torch.no_grad()
def invert(
    latent: torch.Tensor,
    tokens: torch.Tensor,
    surroundings: Surroundings,
    denoiser: Denoiser,
    *,
    steps: int,
    tolerance: float = 1e-3,
    max_refinements: int = 5,
) -> InversionOutput:
    """Run the sampler backwards, from a clean latent to the noise it would have come from.

    Args:
        latent: (batch, 8, 16, 16), float32. tokens: (batch, 10, tokens, token_dim), all stages.
        tolerance: a face is no longer refined at a step once its RMS residual is below it. Each face stops by itself, so
            that its noise map does not depend on its neighbours in the batch.
    """
    timesteps = denoiser.timesteps(steps)
    state, evaluations = latent, 0
    worst = torch.zeros(len(latent), device=latent.device)
    for index in reversed(range(steps)):
        timestep = timesteps[index]
        previous = timesteps[index + 1] if index + 1 < steps else -1
        signal, spread = denoiser.coefficients(timestep)
        signal_previous, spread_previous = denoiser.coefficients(previous)
        # step(predict(z)) = z' with v = predicted velocity: z' = a z - b v, so z = (z' + b v) / a.
        a = signal_previous * signal + spread_previous * spread
        b = signal_previous * spread - spread_previous * signal
        guess = state
        best, best_residual = guess, torch.full_like(worst, float("inf"))
        for _ in range(max_refinements + 1):
            prediction = denoiser.predict(guess, timestep, tokens, surroundings)
            evaluations += 1
            residual = _rms(denoiser.step(prediction, previous) - state)
            better = (residual < best_residual) & (best_residual >= tolerance)
            best = torch.where(better[:, None, None, None], guess, best)
            best_residual = torch.where(better, residual, best_residual)
            if float(best_residual.max()) < tolerance:
                break
            velocity = signal * prediction.noise - spread * prediction.clean
            guess = (state + b * velocity) / a
        worst = torch.maximum(worst, best_residual)
        state = best
    return InversionOutput(state, worst, evaluations)


@torch.no_grad()
def regenerate(
    noise_map: torch.Tensor, tokens: torch.Tensor, surroundings: Surroundings, denoiser: Denoiser, *, steps: int
) -> torch.Tensor:
    """Stage 3: the clean latent that a noise map stands for under these embeddings, (batch, 8, 16, 16)."""
    timesteps = denoiser.timesteps(steps)
    state = noise_map
    for index, timestep in enumerate(timesteps):
        previous = timesteps[index + 1] if index + 1 < steps else -1
        state = denoiser.step(denoiser.predict(state, timestep, tokens, surroundings), previous)
    return state

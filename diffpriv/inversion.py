"""Deterministic DDIM inversion with fixed-point refinement: crop latent -> noise map (key-I), and the way back.

Source: Song et al. 2021 (DDIM), eq. 12 solved for the noisier state; He et al. 2023 (Diff-Privacy), section 3.1. Each inverse
step is the implicit equation step(predict(z_t), t') = z_t', a fixed point of z = (z' + b v(z)) / a. It is iterated with
Anderson acceleration of depth one (Walker and Ni 2011), from the velocity found at the step before, `max_refinements` times or
until the residual is below the tolerance. The last evaluation is spent twice: it measures an iterate and maps it once more.
Pure: no files, no engine, no global random state. Same input, same bits, on one device type, dtype and batch shape.
"""

from dataclasses import dataclass

import torch

from diffpriv.denoising import Denoiser, Surroundings


@dataclass(frozen=True)
class InversionOutput:
    """A noise map from which the sampler gives the crop back, and what finding it took."""

    noise_map: torch.Tensor  # (batch, 8, 16, 16), float32, about unit variance
    residual: torch.Tensor  # (batch,), RMS error of the implicit equation at its worst timestep, before the last mapping
    unet_evaluations: int  # per face


def _rms(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().mean((1, 2, 3)).sqrt()


def _accelerated(
    mapped: torch.Tensor, mapped_before: torch.Tensor, change: torch.Tensor, change_before: torch.Tensor | None
) -> torch.Tensor:
    """Anderson mixing of the last two images of the map, by the weight that makes their changes cancel best, per face."""
    if change_before is None:
        return mapped
    difference = change - change_before
    weight = (change * difference).sum((1, 2, 3)) / difference.square().sum((1, 2, 3)).clamp(min=1e-12)
    return mapped - weight.clamp(-2, 2)[:, None, None, None] * (mapped - mapped_before)


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
    velocity = torch.zeros_like(latent)
    worst = torch.zeros(len(latent), device=latent.device)
    for index in reversed(range(steps)):
        timestep = timesteps[index]
        previous = timesteps[index + 1] if index + 1 < steps else -1
        signal, spread = denoiser.coefficients(timestep)
        signal_previous, spread_previous = denoiser.coefficients(previous)
        # step(predict(z)) = z' with v = predicted velocity: z' = a z - b v, so z = (z' + b v) / a.
        a = signal_previous * signal + spread_previous * spread
        b = signal_previous * spread - spread_previous * signal
        guess = (state + b * velocity) / a
        best, best_velocity, best_residual = guess, velocity, torch.full_like(worst, float("inf"))
        mapped: torch.Tensor | None = None
        change: torch.Tensor | None = None
        for _ in range(max_refinements + 1):
            prediction = denoiser.predict(guess, timestep, tokens, surroundings)
            evaluations += 1
            residual = _rms(denoiser.step(prediction, previous) - state)
            better = (residual < best_residual) & (best_residual >= tolerance)
            found = signal * prediction.noise - spread * prediction.clean
            best_velocity = torch.where(better[:, None, None, None], found, best_velocity)
            best_residual = torch.where(better, residual, best_residual)
            before, change_before = mapped, change
            mapped = (state + b * found) / a
            change = mapped - guess
            guess = mapped if before is None else _accelerated(mapped, before, change, change_before)
            # The image of the best iterate is closer still, and costs no evaluation.
            best = torch.where(better[:, None, None, None], guess, best)
            if float(best_residual.max()) < tolerance:
                break
        worst = torch.maximum(worst, best_residual)
        state, velocity = best, best_velocity
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

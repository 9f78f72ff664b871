"""Noise schedule of a diffusers scheduler, and the deterministic steps along it: one algorithm for every latent space.

Source: Song et al. 2021 (DDIM), eq. 12 with eta = 0; Lu et al. 2022 (DPM-Solver++), algorithm 2, for the second order;
Salimans and Ho 2022 for the v-parametrisation. Latents may have any shape after the batch. Pure: no files, no global random
state.
"""

import math
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler


@dataclass(frozen=True)
class Prediction:
    """What the denoiser says of a noisy latent: the clean latent and the noise in it."""

    clean: torch.Tensor  # the one-step estimate of the clean latent
    noise: torch.Tensor


class NoiseSchedule:
    """Stateless between calls.

    Args:
        scheduler: its betas, number of timesteps and prediction type count.
    """

    def __init__(self, scheduler: DDIMScheduler) -> None:
        self.alphas = scheduler.alphas_cumprod.double()
        self._total = int(scheduler.config["num_train_timesteps"])
        self._predicts_v = scheduler.config["prediction_type"] == "v_prediction"

    def timesteps(self, steps: int, strength: float = 1.0) -> list[int]:
        """Decreasing timesteps of a `steps`-step run, the first one at `strength` of the schedule (1: pure noise)."""
        grid = [round(self._total * strength * (steps - index) / steps) - 1 for index in range(steps)]
        return [max(0, timestep) for timestep in grid]

    def coefficients(self, timestep: int) -> tuple[float, float]:
        """(signal, spread) = sqrt(abar_t), sqrt(1 - abar_t); timestep -1 is the clean latent."""
        if timestep < 0:
            return 1.0, 0.0
        alpha = float(self.alphas[timestep])
        return alpha**0.5, (1 - alpha) ** 0.5

    def prediction(self, output: torch.Tensor, noisy: torch.Tensor, timestep: int) -> Prediction:
        """What a network's output, v or noise, says of clean latent and noise."""
        signal, spread = self.coefficients(timestep)
        if self._predicts_v:
            return Prediction(signal * noisy - spread * output, spread * noisy + signal * output)
        return Prediction((noisy - spread * output) / max(signal, 1e-4), output)

    def step(self, prediction: Prediction, to_timestep: int) -> torch.Tensor:
        """The DDIM state at `to_timestep` on the straight line through the prediction (eq. 12, eta = 0)."""
        signal, spread = self.coefficients(to_timestep)
        return signal * prediction.clean + spread * prediction.noise

    def extrapolated(self, prediction: Prediction, before: torch.Tensor, timesteps: tuple[int, int, int]) -> Prediction:
        """The prediction moved on along its own change: `step` from it is a second-order multistep (2M) step.

        Args:
            prediction: at the second of the timesteps.
            before: the clean estimate at the first.
            timesteps: the one before, this one, and the one stepped to; to -1, the clean latent, nothing is extrapolated: it is
                infinitely far off.
        """
        if timesteps[2] < 0:
            return prediction
        first, here, there = (self._log_ratio(timestep) for timestep in timesteps)
        clean = prediction.clean + (there - here) / (2 * (here - first)) * (prediction.clean - before)
        signal, spread = self.coefficients(timesteps[1])
        return self.with_clean(signal * prediction.clean + spread * prediction.noise, timesteps[1], clean)

    def with_clean(self, noisy: torch.Tensor, timestep: int, clean: torch.Tensor) -> Prediction:
        """The prediction that takes this noisy latent for that clean one."""
        signal, spread = self.coefficients(timestep)
        return Prediction(clean, (noisy - signal * clean) / spread)

    def _log_ratio(self, timestep: int) -> float:
        signal, spread = self.coefficients(timestep)
        return math.log(signal / spread)

"""From keyed noise to a clean latent: the deterministic sampler of stage 2, for spatial latents and style codes alike.

Source: He et al. 2023 (Diff-Privacy), section 3.3; first-order steps are DDIM (Song et al. 2021, eq. 12, eta = 0), second-order
ones DPM-Solver++ 2M (Lu et al. 2022, algorithm 2); with renewed noise it is multistep consistency sampling (Song et al. 2023,
algorithm 1). Pure: no files, no global random state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffpriv.noise_schedule import NoiseSchedule, Prediction

GUIDED_BELOW = 900  # timesteps; above, the clean estimate is an average face, and its gradient costs as much as any
Draw = Callable[[int], torch.Tensor]  # index of a step -> noise of the state's shape
Predict = Callable[[torch.Tensor, int], Prediction]  # (noisy state, its timestep) -> what the denoiser says of it
Guide = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (state after the step, clean estimate before it) -> state
Keep = Callable[[torch.Tensor, int], torch.Tensor]  # (state, its timestep) -> state with what is known put back


@dataclass(frozen=True)
class Guidance:
    """When an energy guides.

    every: each k-th of the steps from timestep `above` to GUIDED_BELOW, counted from the last of these. What later steps make
    of it is a face again.
    last: times that it is applied to the finished latent.
    """

    guide: Guide
    every: int = 1
    above: int = 0
    last: int = 0


def sample(
    state: torch.Tensor,
    timesteps: list[int],
    predict: Predict,
    schedule: NoiseSchedule,
    *,
    order: int = 1,
    guidance: Guidance | None = None,
    keep: Keep | None = None,
    renew: Draw | None = None,
) -> torch.Tensor:
    """The clean latent, of the state's shape.

    Args:
        state: noisy latent at the first timestep.
        predict: the denoiser under its conditions.
        order: 1 or 2.
        guidance: an energy, and when it acts.
        keep: applied after every step.
        renew: each step takes new noise to the clean estimate instead of following the predicted one, so that a step mends what
            the one before got wrong; for a denoiser whose estimates are faces rather than means of faces.
    """
    before: torch.Tensor | None = None
    guided_steps: list[int] = []
    if guidance is not None:
        band = [index for index, timestep in enumerate(timesteps) if guidance.above <= timestep < GUIDED_BELOW]
        guided_steps = band[::-1][:: guidance.every]
    for index, timestep in enumerate(timesteps):
        following = timesteps[index + 1] if index + 1 < len(timesteps) else -1
        prediction = predict(state, timestep)
        ahead = prediction
        if order == 2 and before is not None:
            ahead = schedule.extrapolated(prediction, before, (timesteps[index - 1], timestep, following))
        if renew is not None and following >= 0:
            ahead = Prediction(ahead.clean, renew(index + 1))
        state, before = schedule.step(ahead, following), prediction.clean
        if guidance is not None and index in guided_steps:
            state = guidance.guide(state, prediction.clean)
        if keep is not None:
            state = keep(state, following)
    if guidance is not None:
        for _ in range(guidance.last):
            state = guidance.guide(state, state)
    return state

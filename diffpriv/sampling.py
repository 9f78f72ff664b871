"""From keyed noise to the latent of a face: the deterministic sampler of stage 2.

Source: He et al. 2023 (Diff-Privacy), section 3.3; first-order steps are DDIM (Song et al. 2021, eq. 12, eta = 0), second-order
ones DPM-Solver++ 2M (Lu et al. 2022, algorithm 2); with renewed noise it is multistep consistency sampling (Song et al. 2023,
algorithm 1). Classifier-free guidance (Ho and Salimans 2021, eq. 6) is called contrast here, since "guidance" is the energy's;
it acts on the clean estimate, and only in the middle of the schedule (Kynkäänniemi et al. 2024).
Pure: no files, no global random state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffpriv.denoising import Denoiser, Prediction, Surroundings

CONTRAST_BAND = range(200, 900)  # timesteps; above, all is noise, and below, the face is settled
GUIDED_BELOW = 900  # timesteps; above, the clean estimate is nobody's face, and its gradient costs as much as any
Draw = Callable[[int], torch.Tensor]  # index of a step -> noise of the state's shape
Guide = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (state after the step, clean estimate before it) -> state
Keep = Callable[[torch.Tensor, int], torch.Tensor]  # (state, its timestep) -> state with what is known put back


@dataclass(frozen=True, eq=False)
class Conditions:
    """What the denoiser is told: stage tokens and null tokens, (batch, 10, tokens, token_dim), and the surroundings."""

    tokens: torch.Tensor
    null_tokens: torch.Tensor
    surroundings: Surroundings


def sample(
    state: torch.Tensor,
    timesteps: list[int],
    conditions: Conditions,
    denoiser: Denoiser,
    *,
    order: int = 1,
    contrast: float = 1.0,
    contrast_region: torch.Tensor | None = None,
    guide: Guide | None = None,
    guide_every: int = 1,
    guide_above: int = 0,
    guide_last: int = 0,
    keep: Keep | None = None,
    renew: Draw | None = None,
) -> torch.Tensor:
    """The clean latent, (batch, channels, side, side).

    Args:
        state: noisy latent at the first timestep. order: 1 or 2.
        contrast: weight w of the tokens' effect, clean = null + w (conditional - null); 1 asks for no null prediction.
        contrast_region: (1, 1, side, side) in [0, 1]: where the tokens' effect counts, and only as it differs from its mean
            there. They tell of somebody else's hair, background and tone too, which are the surroundings' to decide. None is
            everywhere, mean and all.
        guide: applied after each `guide_every`-th of the steps from timestep `guide_above` to GUIDED_BELOW, counted from
            the last of these. What later steps make of it is a face again. guide_last: times that it is applied to the finished
            latent. keep: after every step.
        renew: each step takes new noise to the clean estimate instead of following the predicted one, so that a step mends what
            the one before got wrong; for a denoiser whose estimates are faces rather than means of faces.
    """
    before: torch.Tensor | None = None
    band = [index for index, timestep in enumerate(timesteps) if guide_above <= timestep < GUIDED_BELOW]
    guided_steps = band[::-1][::guide_every]
    for index, timestep in enumerate(timesteps):
        following = timesteps[index + 1] if index + 1 < len(timesteps) else -1
        prediction = _predict(state, timestep, conditions, denoiser, contrast, contrast_region)
        ahead = prediction
        if order == 2 and before is not None:
            ahead = denoiser.extrapolated(prediction, before, (timesteps[index - 1], timestep, following))
        if renew is not None and following >= 0:
            ahead = Prediction(ahead.clean, renew(index + 1))
        state, before = denoiser.step(ahead, following), prediction.clean
        if guide is not None and index in guided_steps:
            state = guide(state, prediction.clean)
        if keep is not None:
            state = keep(state, following)
    if guide is not None:
        for _ in range(guide_last):
            state = guide(state, state)
    return state


def _predict(
    state: torch.Tensor,
    timestep: int,
    conditions: Conditions,
    denoiser: Denoiser,
    contrast: float,
    region: torch.Tensor | None,
) -> Prediction:
    told = denoiser.predict(state, timestep, conditions.tokens, conditions.surroundings)
    if contrast == 1 or timestep not in CONTRAST_BAND:
        return told
    untold = denoiser.predict(state, timestep, conditions.null_tokens, conditions.surroundings)
    effect = told.clean - untold.clean
    if region is not None:
        effect = region * (effect - (region * effect).sum((2, 3), keepdim=True) / region.sum())
    return denoiser.with_clean(state, timestep, untold.clean + contrast * effect)

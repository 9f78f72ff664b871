"""Embedding schedules: which stage tokens condition which timestep of stage 2 (He et al. 2023, section 3.3.1).

A schedule is conditional on key-E at high noise, where pose, light and layout are decided, and not below a threshold, where
likeness is. The thresholds are the task's. Below, the paper's schedule is unconditional; ours may tell the denoiser of somebody
who does not exist instead, which makes faces clearer and makes every key's face another one.
"""

import torch

from diffpriv.models.msi import STAGES, MultiScaleInverter


def scheduled_tokens(
    msi: MultiScaleInverter, features: torch.Tensor, conditional_from: int, below: torch.Tensor | None = None
) -> torch.Tensor:
    """Stage tokens of a run that is conditional on key-E for timesteps >= `conditional_from`.

    Args:
        features: key-E, (batch, 3, dim). conditional_from: a timestep; 0 is conditional throughout, 1000 never.
            Rounded up to the next stage boundary, so that no stage is half conditional.
        below: features that condition the lower timesteps, (batch, 3, dim); None is the null embedding. They have no say in the
            highest stage, where the layout is decided: hair and background are the surroundings', not somebody else's.
    Returns:
        (batch, 10, tokens, token_dim).
    """
    first = -(-conditional_from * STAGES // 1000)
    lower = msi.null_stage_tokens(len(features)) if below is None else msi.stage_tokens(below)
    if first >= STAGES:
        return torch.cat([lower[:, :-1], msi.null_stage_tokens(len(features))[:, -1:]], 1)
    return torch.cat([lower[:, :first], msi.stage_tokens(features)[:, first:]], 1)

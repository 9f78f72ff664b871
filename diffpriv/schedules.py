"""Embedding schedules: which stage tokens condition which timestep of stage 2 (He et al. 2023, section 3.3.1).

A schedule is conditional on key-E at high noise, where pose, light and layout are decided, and unconditional below a
threshold, where likeness is. The thresholds are the task's.
"""

import torch

from diffpriv.models.msi import STAGES, MultiScaleInverter


def scheduled_tokens(msi: MultiScaleInverter, features: torch.Tensor, conditional_from: int) -> torch.Tensor:
    """Stage tokens of a run that is conditional for timesteps >= `conditional_from` and unconditional below.

    Args:
        features: key-E, (batch, 3, dim). conditional_from: a timestep; 0 is conditional throughout, 1000 never.
            Rounded up to the next stage boundary, so that no stage is half conditional.
    Returns:
        (batch, 10, tokens, token_dim).
    """
    first = -(-conditional_from * STAGES // 1000)
    tokens = msi.null_stage_tokens(len(features)).clone()
    tokens[:, first:] = msi.stage_tokens(features)[:, first:]
    return tokens

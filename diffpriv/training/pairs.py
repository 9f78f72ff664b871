"""Relativistic pairs: what discriminators with several heads lose and say when each face is set against a photo.

Source: Jolicoeur-Martineau 2019. Logits are lists, a head each, of (n, 1, height, width).
"""

import torch
from torch.nn import functional


def gaps(first: list[torch.Tensor], second: list[torch.Tensor]) -> list[torch.Tensor]:
    return [one.float() - other.float() for one, other in zip(first, second, strict=True)]


def losses(ahead: list[torch.Tensor]) -> torch.Tensor:
    """(n,), over all heads: small where `ahead`, the gaps from what should be lower to what should be higher, are large."""
    return torch.stack([functional.softplus(-gap).mean((1, 2, 3)) for gap in ahead]).sum(0)


def share_right(ahead: list[torch.Tensor]) -> torch.Tensor:
    """Share of pairs and heads whose gap is above zero."""
    return torch.stack([(gap.mean((1, 2, 3)) > 0).float().mean() for gap in ahead]).mean()

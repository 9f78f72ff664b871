"""Ensemble identity energy of the task `anonymize`: how much the face still resembles the original beyond a margin.

He et al. 2023 (Diff-Privacy), section 3.3.2, with an ensemble of recognisers f and a margin m that may lie below zero:
E(x̂0) = Σ_f max(0, cos(f(x̂0), f(x)) − m).
"""

from collections.abc import Sequence

import torch

from diffpriv.models.recognizer import FaceRecognizer


class IdentityEnergy:
    """Remembers the originals' embeddings, so that each evaluation embeds the candidate only.

    Args:
        recognizers: the ensemble, differentiable.
        originals: (batch, 3, 128, 128) in [-1, 1], canonical crops.
        margin: similarity below which a recogniser exerts no force.
    """

    def __init__(self, recognizers: Sequence[FaceRecognizer], originals: torch.Tensor, margin: float) -> None:
        self.recognizers = recognizers
        self.margin = margin
        with torch.no_grad():
            self.targets = [recognizer.embed_canonical(originals) for recognizer in recognizers]

    def similarities(self, crops: torch.Tensor) -> torch.Tensor:
        """(recognisers, batch) similarities of the crops to the originals."""
        pairs = zip(self.recognizers, self.targets, strict=True)
        return torch.stack([recognizer.similarity(recognizer.embed_canonical(crops), target) for recognizer, target in pairs])

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """(batch,) energy of crops (batch, 3, 128, 128) in [-1, 1]."""
        return (self.similarities(crops) - self.margin).clamp(min=0).sum(0)

"""Ensemble identity energy of the task `anonymize`: how much the face still resembles the original beyond a margin.

He et al. 2023 (Diff-Privacy), section 3.3.2, with an ensemble of recognisers f and a margin m that may lie below zero:
E(x̂0) = Σ_f max(0, sim(f(x̂0), f(x)) − m) − w Σ_f f(x̂0) · u_f. The second sum is ours: u is a random direction drawn from the
face's seed. Without it every key would push one face the same way, straight away from the original, and two outputs of one
person under two keys would resemble each other.
"""

from collections.abc import Sequence

import torch

from diffpriv.models.recognizer import FaceRecognizer

PULL = 1.0  # weight w of the seed's own direction


class IdentityEnergy:
    """Remembers the originals' embeddings, so that each evaluation embeds the candidate only.

    Args:
        recognizers: the ensemble, differentiable.
        originals: (batch, 3, 128, 128) in [-1, 1], canonical crops.
        margin: similarity below which the original exerts no force.
        directions: (batch, dim) per recogniser, one for each face, of unit length from its seed; a longer one pulls harder,
            towards a synthetic identity.
    """

    def __init__(
        self,
        recognizers: Sequence[FaceRecognizer],
        originals: torch.Tensor,
        margin: float,
        directions: Sequence[torch.Tensor],
    ) -> None:
        self.recognizers = recognizers
        self.margin = margin
        self.directions = directions
        with torch.no_grad():
            self.targets = [recognizer.embed_canonical(originals) for recognizer in recognizers]

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """(batch,) energy of crops (batch, 3, 128, 128) in [-1, 1]."""
        energy = torch.zeros(len(crops), device=crops.device)
        for recognizer, target, direction in zip(self.recognizers, self.targets, self.directions, strict=True):
            embedded = recognizer.embed_canonical(crops)
            energy = energy + (recognizer.similarity(embedded, target) - self.margin).clamp(min=0)
            energy = energy - PULL * (embedded * direction).sum(1)
        return energy

"""Ensemble identity energy of the task `anonymize`: how much the face still resembles the original beyond a margin.

He et al. 2023 (Diff-Privacy), section 3.3.2, with an ensemble of recognisers f and a margin m that may lie below zero:
E(x̂0) = Σ_f max(0, sim(f(x̂0), f(x)) − m) − w Σ_f f(x̂0) · u_f. The second sum is ours: u is a random direction drawn from the
face's seed. Without it every key would push one face the same way, straight away from the original, and two outputs of one
person under two keys would resemble each other. Several candidates of one face may repel each other as well (`repulsion`).
"""

from collections.abc import Sequence

import torch

from diffpriv.energies.repulsion import CandidateRepulsion
from diffpriv.recognition import DifferentiableRecognizer

PULL = 1.0  # weight w of the seed's own direction


class IdentityEnergy:
    """Each evaluation embeds the new faces only, once per recogniser.

    Args:
        recognizers: the ensemble.
        targets: (batch, dim) per recogniser, the originals' embeddings.
        margin: similarity below which the original exerts no force.
        directions: (batch, dim) per recogniser, one for each face, of unit length from its seed; a longer one pulls harder,
            towards a synthetic identity.
        repulsion: between candidates of one face.
    """

    def __init__(
        self,
        recognizers: Sequence[DifferentiableRecognizer],
        targets: Sequence[torch.Tensor],
        margin: float,
        directions: Sequence[torch.Tensor],
        repulsion: CandidateRepulsion | None = None,
    ) -> None:
        self.recognizers = recognizers
        self.targets = targets
        self.margin = margin
        self.directions = directions
        self.repulsion = repulsion

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """(batch,) energy of crops (batch, 3, 128, 128) in [-1, 1]."""
        energy = torch.zeros(len(crops), device=crops.device)
        for recognizer, target, direction in zip(self.recognizers, self.targets, self.directions, strict=True):
            embedded = recognizer.embed_canonical(crops)
            energy = energy + (recognizer.similarity(embedded, target) - self.margin).clamp(min=0)
            energy = energy - PULL * (embedded * direction).sum(1)
            if self.repulsion is not None:
                energy = energy + self.repulsion(recognizer, embedded)
        return energy

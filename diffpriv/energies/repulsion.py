"""Candidate repulsion of the task `anonymize`: several candidates of one face are pushed apart, so that keys differ more.

He et al. 2023 (Diff-Privacy), section 3.3.2, for candidates i < j of one face, recognisers f and a margin m:
E(x̂0) = Σ_f Σ_{i<j} max(0, sim(f(x̂0_i), f(x̂0_j)) − m). Half of a pair's energy is counted with each of the two, so the sum over
a batch is the sum over pairs. Faces of a batch never see each other.
"""

import torch

from diffpriv.recognition import DifferentiableRecognizer

MARGIN = 0.0  # strangers' mean similarity


class CandidateRepulsion:
    """Args:
    candidates: of each face, two or more; a batch holds them side by side, face by face.
    apart: (batch,) bool, False for faces whose candidates shall not part (those that share a synthetic identity).
    margin: similarity of two candidates below which they exert no force.
    """

    def __init__(self, candidates: int, apart: torch.Tensor, margin: float = MARGIN) -> None:
        self.candidates, self.apart, self.margin = candidates, apart, margin

    def __call__(self, recognizer: DifferentiableRecognizer, embedded: torch.Tensor) -> torch.Tensor:
        """One recogniser's part of the energy, (batch,).

        Args:
            embedded: of the candidates' clean estimates, (batch, dim).
        """
        faces = embedded.unflatten(0, (-1, self.candidates))
        similarity = recognizer.similarity(faces[:, :, None], faces[:, None])  # (faces, candidates, candidates)
        others = 1 - torch.eye(self.candidates, device=embedded.device)
        beyond = (similarity - self.margin).clamp(min=0) * others
        return 0.5 * beyond.sum(2).flatten() * self.apart

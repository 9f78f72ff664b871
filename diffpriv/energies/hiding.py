"""Energy of the task `hide`: a chosen recogniser still knows the face, a human no longer does.

He et al. 2023 (Diff-Privacy), section 3.3.3: E(x̂0) = 1 − cos(f(x̂0), f(x)), plus an appearance push that grows as the coarse
picture (16 px, where people recognise one another) nears the original: w · max(0, r − rms(coarse(x̂0) − coarse(x))).
"""

import torch
from torch.nn import functional

from diffpriv.recognition import DifferentiableRecognizer

COARSE = 16


class HidingEnergy:
    """Args:
    recognizer: the one that shall still match.
    originals: (batch, 3, 128, 128) in [-1, 1]. target: (batch, dim), their embeddings.
    region: (128, 128) blend mask; appearance is compared inside it.
    push: weight w of the appearance term.
    distance: RMS difference r (in [-1, 1] units) beyond which appearance is different enough.
    """

    def __init__(
        self,
        recognizer: DifferentiableRecognizer,
        originals: torch.Tensor,
        target: torch.Tensor,
        region: torch.Tensor,
        *,
        push: float,
        distance: float,
    ) -> None:
        self.recognizer = recognizer
        self.target = target
        self.push, self.distance = push, distance
        self.region = functional.adaptive_avg_pool2d(region[None, None], COARSE)
        self.coarse = functional.adaptive_avg_pool2d(originals, COARSE)

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        unlike = 1 - self.recognizer.similarity(self.recognizer.embed_canonical(crops), self.target)
        difference = (functional.adaptive_avg_pool2d(crops, COARSE) - self.coarse).square() * self.region
        apart = (difference.sum((1, 2, 3)) / (3 * self.region.sum()) + 1e-8).sqrt()
        return unlike + self.push * (self.distance - apart).clamp(min=0)

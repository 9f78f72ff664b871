"""What a new head is to be like, and the energy of a code that is not: the terms that guide sampling in style space.

E = places + looks + frame + identity. Places and looks are squared distances in steps, flat inside a step; frame is what the
drawing's edge cuts and hair on a bare forehead; identity pulls towards a synthetic person, and pushes from the original only
while that one is nearer than a stranger (He et al. 2023, section 3.3.2, with a target instead of a bare push: an attacker
mirrors a push). Pure; differentiable.
"""

from dataclasses import dataclass, fields

import torch

from diffpriv.faces.appearance import NAMES, STEPS, TOLD
from diffpriv.generator.prototypes import LookPrototypes
from diffpriv.generator.reader import Reading
from diffpriv.generator.traits import READ

PLACE_WEIGHT, LOOK_WEIGHT, FRAME_WEIGHT = 1.5, 4.0, 3.0
PULL, PUSH = 60.0, 80.0
MOST_FRINGE = 0.12  # share of the forehead under hair that a face may have whose own hair is not drawn along
CUT = 0.08  # share of the frame's edge that a head may touch
# Which places count more: where the features are matters more than how wide the mouth is.
PLACE_WEIGHTS = {
    "nose_x": 3.0,
    "nose_y": 2.0,
    "mouth_y": 2.0,
    "mouth_width": 0.5,
    "light": 1.5,
    "green_red": 1.5,
    "blue_yellow": 1.5,
}


@dataclass(frozen=True, eq=False)
class Wishes:
    """What n heads are to be like.

    places: (n, len(TOLD)) in their units, each in the middle of its step.
    looks: (n, len(TRAITS)) standardised, of a prototype.
    person: (n, dim) embeddings to pull towards.
    original: (n, dim) embeddings of the covered faces.
    margin: (n,) similarity to the original below which nothing pushes.
    pull: (n,) factor on the identity terms, 1 unless an attempt was over the limit.
    start: (n, 2, 512) latents that guiding starts from instead of a draw: those of people whose photos are to be one person
        again. A row of NaN is none.
    """

    places: torch.Tensor
    looks: torch.Tensor
    person: torch.Tensor
    original: torch.Tensor
    margin: torch.Tensor
    pull: torch.Tensor
    start: torch.Tensor | None = None

    def repeated(self, draws: int) -> "Wishes":
        """Each wish `draws` times, one after the other."""
        there = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None}
        return Wishes(**{name: tensor.repeat_interleave(draws, 0) for name, tensor in there.items()})


@dataclass(frozen=True, eq=False)
class WishEnergy:
    """Args:
    wishes: one a code.
    prototypes: their scales make numbers into traits.
    spread: of the recogniser, see `FaceRecognizer`.
    keep_hair: the photos' own hair stays in front, so a drawing may have none on its forehead; else its frame may cut no head.
    """

    wishes: Wishes
    prototypes: LookPrototypes
    spread: float
    keep_hair: bool

    def __call__(self, reading: Reading) -> torch.Tensor:
        """(batch,) energies."""
        return sum(self.terms(reading).values(), torch.zeros(len(reading.numbers), device=reading.numbers.device))

    def terms(self, reading: Reading) -> dict[str, torch.Tensor]:
        """The energy's parts by name, (batch,) each."""
        numbers = reading.numbers
        return {
            "places": PLACE_WEIGHT * self._places(numbers),
            "looks": LOOK_WEIGHT * self._looks(numbers),
            "frame": FRAME_WEIGHT * self._frame(numbers),
            "identity": self.wishes.pull * self._identity(reading.embedding),
        }

    def _places(self, numbers: torch.Tensor) -> torch.Tensor:
        wanted = self.wishes.places
        steps = torch.tensor([STEPS[name] for name in TOLD]).to(numbers)
        weights = torch.tensor([PLACE_WEIGHTS.get(name, 1.0) for name in TOLD]).to(numbers)
        off = (numbers[:, [NAMES.index(name) for name in TOLD]] - wanted) / steps
        return (weights * (off.abs() - 0.25).clamp(min=0).square()).sum(1)

    def _looks(self, numbers: torch.Tensor) -> torch.Tensor:
        off = (self.prototypes.standardised(numbers) - self.wishes.looks) * self.prototypes.weights
        return (off.abs() - 0.2).clamp(min=0).square().sum(1)

    def _frame(self, numbers: torch.Tensor) -> torch.Tensor:
        cut = (numbers[:, READ.index("cut")] - CUT).clamp(min=0)
        if not self.keep_hair:
            return cut
        return (numbers[:, READ.index("fringe")] - MOST_FRINGE).clamp(min=0)

    def _identity(self, embedding: torch.Tensor) -> torch.Tensor:
        to_original, to_person = (self._similarity(embedding, one) for one in (self.wishes.original, self.wishes.person))
        return PUSH * (to_original - self.wishes.margin).clamp(min=0) - PULL * to_person

    def _similarity(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """As `DifferentiableRecognizer.similarity`: 1 for the same, 0 for strangers on average."""
        return 1 - (1 - (first * second).sum(1)) / self.spread

"""What an adaptive attacker holds: (original, output) pairs of some people, made by running this tool on photos of its own.

Every attacker is fitted on its people, picks what to keep on people it set aside, and is tested on people it never saw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from diffpriv.metrics.verification import area_under_curve

LEAST_HELD = 4  # people: two to train on, two to choose by
Embed = Callable[[np.ndarray], np.ndarray]  # (n, 128, 128, 3) uint8 crops -> (n, dim) unit vectors


@dataclass(frozen=True, eq=False)
class FacePairs:
    """originals, outputs: (n, 128, 128, 3) uint8 crops at one and the same alignment; persons: (n,) whole numbers."""

    originals: np.ndarray
    outputs: np.ndarray
    persons: np.ndarray

    def take(self, chosen: np.ndarray) -> "FacePairs":
        return FacePairs(self.originals[chosen], self.outputs[chosen], self.persons[chosen])


@dataclass(frozen=True, eq=False)
class AttackerData:
    """The attacker's own people, those it chooses by, and the people it is after: no person is in two of them."""

    training: FacePairs
    choosing: FacePairs
    tested: FacePairs
    tested_rows: np.ndarray  # of the pairs that were cut


def split_people(pairs: FacePairs, *, seed: int, attacker: float = 0.5, choosing: float = 0.2) -> AttackerData:
    """Cut by person, by faces rather than heads, so that one person with many photos does not empty a side.

    Args:
        attacker: share of the faces that the attacker holds. choosing: share of those that it sets aside.
    """
    people, counts = np.unique(pairs.persons, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(people))
    reached = np.cumsum(counts[order]) / len(pairs.persons)
    held = people[order[reached <= max(attacker, reached[0])]]
    if len(held) < LEAST_HELD or len(held) > len(people) - 2:
        raise ValueError("too few people to give an attacker some and to test it on others")
    aside = held[: max(2, round(len(held) * choosing))]
    mine, chosen_by = np.isin(pairs.persons, held), np.isin(pairs.persons, aside)
    tested = np.flatnonzero(~mine)
    return AttackerData(pairs.take(mine & ~chosen_by), pairs.take(chosen_by), pairs.take(tested), tested)


class FittedAttack(Protocol):
    """An attacker after training."""

    @property
    def name(self) -> str: ...

    def scores(self, outputs: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """(n, ...) outputs against (m, ...) clean crops -> (n, m), higher is more alike."""
        ...


Attack = TypeVar("Attack", bound=FittedAttack)


def choose(candidates: Sequence[Attack], data: FacePairs) -> Attack:
    """The candidate that tells the set-aside people's pairs from strangers best, by the area under its ROC."""
    return max(candidates, key=lambda one: separation(one, data))


def separation(attack: FittedAttack, data: FacePairs) -> float:
    """Area under the ROC over all genuine pairs, own photo and others."""
    return separation_of(attack.scores(data.outputs, data.originals), data.persons)


def separation_of(scores: np.ndarray, persons: np.ndarray) -> float:
    """See `separation`; scores (n, n) of outputs against originals. 0.5 where there is nobody to compare with."""
    same = persons[:, None] == persons[None]
    return 0.5 if same.all() else area_under_curve(scores[same], scores[~same])

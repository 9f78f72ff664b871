"""Verification and identification from a matrix of similarities; intervals respect that photos of one person go together.

A false-accept rate (FAR) fixes a threshold on pairs of strangers; the true-accept rate (TAR) is the share of genuine pairs
above it. An attacker that knows nothing accepts genuine pairs as often as strangers: TAR = FAR, which is what "chance" means
here.
Pure: numpy, no files, no clock; random draws come from a seed.
"""

from dataclasses import dataclass

import numpy as np

REPLICATES = 200  # of the bootstrap
MOST_IMPOSTORS = 400_000  # pairs of strangers looked at per replicate; more change no digit
LEVEL = 0.95
DECIMALS = 4


@dataclass(frozen=True)
class Rate:
    """A share with its interval at LEVEL. `value` is None where there was nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    count: int

    def to_json(self) -> dict[str, float | int | None]:
        rounded = [None if one is None else round(one, 5) for one in (self.value, self.low, self.high)]
        return {"value": rounded[0], "low": rounded[1], "high": rounded[2], "count": self.count}


@dataclass(frozen=True, eq=False)
class Trial:
    """Every probe against every gallery face.

    Attributes:
        scores: (probes, gallery), higher is more alike; rounded to DECIMALS, since kernels give equal pictures scores that
            differ in their last bits, and such a difference must never decide who is who.
        probe_person, gallery_person: (probes,), (gallery,) whole numbers that name people.
        probe_photo, gallery_photo: whole numbers; a probe and a gallery face of one number come from one and the same photo.
    """

    scores: np.ndarray
    probe_person: np.ndarray
    gallery_person: np.ndarray
    probe_photo: np.ndarray
    gallery_photo: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", np.round(np.asarray(self.scores, np.float64), DECIMALS))

    @property
    def same_person(self) -> np.ndarray:
        return self.probe_person[:, None] == self.gallery_person[None]

    @property
    def same_photo(self) -> np.ndarray:
        return self.probe_photo[:, None] == self.gallery_photo[None]

    def genuine(self, kind: str) -> np.ndarray:
        """Mask of genuine pairs: "own" photo (the protected photo's own original), or "other" photo of the person."""
        return self.same_photo if kind == "own" else self.same_person & ~self.same_photo

    def of_probes(self, chosen: np.ndarray) -> "Trial":
        """The same gallery, some of the probes."""
        return Trial(
            self.scores[chosen], self.probe_person[chosen], self.gallery_person, self.probe_photo[chosen], self.gallery_photo
        )


def cosine_trial(probes: np.ndarray, gallery: np.ndarray, persons: np.ndarray, photos: np.ndarray | None = None) -> Trial:
    """The trial of two sets of embeddings, (n, dim) each, of the same n photos."""
    photos = np.arange(len(persons)) if photos is None else photos
    return Trial(unit(probes) @ unit(gallery).T, persons, persons, photos, photos)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros stays one, which is like nothing."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def threshold_at(impostors: np.ndarray, far: float) -> float:
    """Lowest threshold that at most `far` of the impostor scores exceed; a pair is accepted when its score exceeds it."""
    ordered = np.sort(impostors)
    return float(ordered[len(ordered) - 1 - int(np.floor(len(ordered) * far))])


def true_accept_rate(trial: Trial, kind: str, far: float, threshold: float | None = None, *, seed: int = 0) -> Rate:
    """TAR of "own" or "other" genuine pairs.

    Args:
        threshold: a fixed one (from clean pairs), or None for the one at `far` on this trial's own strangers, which is then
            estimated anew in every replicate.
    """
    genuine = trial.genuine(kind)
    rows, columns = np.nonzero(genuine)
    if not len(rows):
        return Rate(None, None, None, 0)
    impostor = ~trial.same_person
    people, who = np.unique(np.concatenate([trial.probe_person, trial.gallery_person]), return_inverse=True)
    probe_who, gallery_who = who[: len(trial.probe_person)], who[len(trial.probe_person) :]
    scores, owner = trial.scores[rows, columns], probe_who[rows]
    strangers = _Strangers(trial.scores, impostor, probe_who, gallery_who, seed) if threshold is None else None
    if strangers is not None and not len(strangers.scores):
        return Rate(None, None, None, len(rows))
    fixed = threshold if strangers is None else strangers.threshold(far, None)
    assert fixed is not None
    value = float((scores > fixed).mean())
    random = np.random.default_rng(seed)
    values = []
    for _ in range(REPLICATES):
        weights = np.bincount(random.integers(0, len(people), len(people)), minlength=len(people)).astype(np.float64)
        cut = fixed if strangers is None else strangers.threshold(far, weights)
        mine = weights[owner]
        if mine.sum() > 0:
            values.append(float((mine * (scores > cut)).sum() / mine.sum()))
    if not values:
        return Rate(value, None, None, len(rows))
    low, high = (float(np.quantile(values, side)) for side in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return _bounded(Rate(value, low, high, len(rows)), len(np.unique(owner)))


class _Strangers:
    """Impostor scores in falling order, so that a weighted threshold takes one running sum."""

    def __init__(
        self, scores: np.ndarray, impostor: np.ndarray, probe_who: np.ndarray, gallery_who: np.ndarray, seed: int
    ) -> None:
        rows, columns = np.nonzero(impostor)
        if len(rows) > MOST_IMPOSTORS:
            kept = np.random.default_rng(seed).choice(len(rows), MOST_IMPOSTORS, replace=False)
            rows, columns = rows[kept], columns[kept]
        values = scores[rows, columns]
        order = np.argsort(-values, kind="stable")
        self.scores = values[order]
        self._first, self._second = probe_who[rows[order]], gallery_who[columns[order]]

    def threshold(self, far: float, weights: np.ndarray | None) -> float:
        if weights is None:
            return threshold_at(self.scores, far)
        running = np.cumsum(weights[self._first] * weights[self._second])
        if not running[-1]:
            return threshold_at(self.scores, far)
        place = int(np.searchsorted(running, far * running[-1], side="right"))
        return float(self.scores[min(place, len(self.scores) - 1)])


def _bounded(rate: Rate, people: int) -> Rate:
    """With no hit, or nothing but hits, resampling shows no spread: the exact bound for that many people stands in."""
    if rate.value is None or rate.low is None or rate.high is None:
        return rate
    bound = 1 - (1 - LEVEL) ** (1 / max(1, people))
    low = min(rate.low, 1 - bound) if rate.value == 1 else rate.low
    high = max(rate.high, bound) if rate.value == 0 else rate.high
    return Rate(rate.value, low, high, rate.count)


def share(hits: np.ndarray, persons: np.ndarray, *, seed: int = 0) -> Rate:
    """The share of `hits` that are true (one per face), people resampled."""
    return _bounded(mean(hits, persons, seed=seed), len(np.unique(persons)))


def mean(values: np.ndarray, persons: np.ndarray, *, seed: int = 0) -> Rate:
    """The mean of one number per face, people resampled; NaNs are left out."""
    hits = np.asarray(values, np.float64)
    kept = np.isfinite(hits)
    hits, persons = hits[kept], persons[kept]
    if not len(hits):
        return Rate(None, None, None, 0)
    people, who = np.unique(persons, return_inverse=True)
    sums, counts = np.bincount(who, hits), np.bincount(who).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(people), (REPLICATES, len(people)))
    resampled = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = (float(np.quantile(resampled, side)) for side in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Rate(float(hits.mean()), low, high, len(hits))


def rank_one(trial: Trial, *, own_photo: bool = False, seed: int = 0) -> tuple[Rate, float | None]:
    """(share of probes whose nearest gallery face is the same person's, what guessing would give).

    Args:
        own_photo: leave the probe's own original in the gallery; else only other photos of the person count, and probes
            without one are left out.
    """
    scores = trial.scores.astype(np.float64).copy()
    same = trial.same_person
    if not own_photo:
        scores[trial.same_photo] = -np.inf
        same = same & ~trial.same_photo
    able = same.any(1)
    if not able.any():
        return Rate(None, None, None, 0), None
    scores, same = scores[able], same[able]
    best = scores == scores.max(1, keepdims=True)  # equal scores share the guess: a constant output is no identification
    hits = (best & same).sum(1) / best.sum(1)
    available = same.shape[1] - (0 if own_photo else 1)
    return share(hits, trial.probe_person[able], seed=seed), float((same.sum(1) / max(1, available)).mean())


def equal_error_rate(trial: Trial, kind: str) -> float | None:
    """Where as many genuine pairs are refused as strangers accepted; 0.5 is a coin."""
    genuine, impostor = trial.scores[trial.genuine(kind)], trial.scores[~trial.same_person]
    if not len(genuine) or not len(impostor):
        return None
    cuts = np.unique(np.quantile(np.concatenate([genuine, impostor]), np.linspace(0, 1, 512)))
    accepted, refused = (impostor[None] > cuts[:, None]).mean(1), (genuine[None] <= cuts[:, None]).mean(1)
    place = int(np.argmin(np.abs(accepted - refused)))
    return float((accepted[place] + refused[place]) / 2)


def area_under_curve(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Chance that a genuine pair scores above a stranger pair, ties counted half; 0.5 is a coin."""
    ordered = np.sort(impostor)
    below = np.searchsorted(ordered, genuine, side="left") + np.searchsorted(ordered, genuine, side="right")
    return float(below.mean() / 2 / len(ordered))


def roc(trial: Trial, kind: str, points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(FAR, TAR) on a logarithmic grid of false-accept rates from 1e-3 to 1."""
    impostor = np.sort(trial.scores[~trial.same_person])
    genuine = np.sort(trial.scores[trial.genuine(kind)])
    fars = np.logspace(-3, 0, points)
    cuts = np.array([threshold_at(impostor, min(far, 1 - 1e-9)) for far in fars])
    return fars, 1 - np.searchsorted(genuine, cuts, side="right") / max(1, len(genuine))

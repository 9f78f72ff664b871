"""Privacy without training: recognisers as they are, against every variant.

    naive     probe: output, gallery: clean photos        an output is looked up among photos of suspects
    reverse   probe: clean photo, gallery: outputs        a suspect's photo is looked up in the published dataset
    parrot    probe: output, gallery: outputs             the gallery went through the same tool: linkage of outputs
    averaged  probe: the mean embedding of all outputs of the person but one photo's, gallery: that clean photo
Verification thresholds are those of clean pairs of strangers. Parrot, with outputs on both sides, has those of their strangers:
outputs that are alike for everybody (solid fill's are) match above any clean threshold, and link nobody. A pair's score is the
same both ways round, so naive and reverse share their TAR and differ in rank-1 identification only.
"""

from typing import Any

import numpy as np

from diffpriv.metrics.verification import Trial, cosine_trial, equal_error_rate, rank_one, threshold_at, true_accept_rate, unit
from diffpriv.pipelines.evaluation.faces import ORIGINAL, EvaluatedFaces
from diffpriv.pipelines.evaluation.judges import Judge

FARS = (1e-2, 1e-3)


class Embeddings:
    """Every variant under one judge, embedded once."""

    def __init__(self, judge: Judge, faces: EvaluatedFaces) -> None:
        self.judge, self.faces = judge, faces
        self._of = {name: judge.embed(looks.crops) for name, looks in faces.looks.items()}
        self.thresholds = self._thresholds()

    def __getitem__(self, variant: str) -> np.ndarray:
        return self._of[variant]

    def trial(self, probes: str, gallery: str) -> Trial:
        return cosine_trial(self._of[probes], self._of[gallery], self.faces.person)

    def _thresholds(self) -> dict[float, float]:
        """Per false-accept rate, on pairs of clean photos of two people."""
        trial = self.trial(ORIGINAL, ORIGINAL)
        strangers = trial.scores[~trial.same_person]
        return {far: threshold_at(strangers, far) for far in FARS} if len(strangers) else {}


def measure_privacy(embeddings: Embeddings, variant: str, seed: int) -> dict[str, Any]:
    """All figures of one variant under one judge, as JSON values."""
    faces = embeddings.faces
    naive = embeddings.trial(variant, ORIGINAL)
    reverse = embeddings.trial(ORIGINAL, variant)
    parrot = embeddings.trial(variant, variant)
    result: dict[str, Any] = {"tar": {}, "identification": {}}
    for far in FARS:
        result["tar"][f"{far:g}"] = {
            "naive own photo": _tar(naive, "own", far, embeddings, seed),
            "naive other photo": _tar(naive, "other", far, embeddings, seed),
            "parrot other photo": true_accept_rate(parrot, "other", far, seed=seed).to_json(),
            "parrot other photo, clean threshold": _tar(parrot, "other", far, embeddings, seed),
            "outputs of two people, clean threshold": _strangers_accepted(parrot, embeddings.thresholds.get(far)),
            "averaged other photo": _tar(_averaged(embeddings, variant), "own", far, embeddings, seed),
        }
    modes = {"naive": naive, "reverse": reverse, "parrot": parrot}
    for name, trial in modes.items():
        rate, chance = rank_one(trial, seed=seed)
        result["identification"][name] = {"rank-1": rate.to_json(), "chance": chance}
    if variant != ORIGINAL:
        rate, chance = rank_one(naive, own_photo=True, seed=seed)
        result["identification"]["naive, own original in the gallery"] = {"rank-1": rate.to_json(), "chance": chance}
    result["equal error rate"] = {kind: equal_error_rate(naive, kind) for kind in ("own", "other")}
    own = naive.scores[naive.same_photo]
    result["similarity to own original"] = {
        "mean": round(float(own.mean()), 4),
        "95 %": round(float(np.quantile(own, 0.95)), 4),
    }
    result["people"] = len(np.unique(faces.person))
    return result


def by_group(embeddings: Embeddings, variant: str, groups: np.ndarray, seed: int) -> dict[str, dict[str, Any]]:
    """The naive attack's TAR per group of probes, at the thresholds of all."""
    naive, parrot = embeddings.trial(variant, ORIGINAL), embeddings.trial(variant, variant)
    return {
        str(group): {
            f"{far:g}": {
                "naive own photo": _tar(naive.of_probes(groups == group), "own", far, embeddings, seed),
                "naive other photo": _tar(naive.of_probes(groups == group), "other", far, embeddings, seed),
                "parrot other photo": true_accept_rate(parrot.of_probes(groups == group), "other", far, seed=seed).to_json(),
            }
            for far in FARS
        }
        for group in np.unique(groups)
    }


def _tar(trial: Trial, kind: str, far: float, embeddings: Embeddings, seed: int) -> dict[str, Any]:
    threshold = embeddings.thresholds.get(far)
    if threshold is None:
        return {"value": None, "low": None, "high": None, "count": 0}
    return true_accept_rate(trial, kind, far, threshold, seed=seed).to_json()


def _strangers_accepted(trial: Trial, threshold: float | None) -> float | None:
    strangers = trial.scores[~trial.same_person]
    return None if threshold is None or not len(strangers) else round(float((strangers > threshold).mean()), 5)


def _averaged(embeddings: Embeddings, variant: str) -> Trial:
    """Row i: the mean of the person's outputs of other photos than i, against clean photo i ("own" pairs) and strangers."""
    person, outputs = embeddings.faces.person, embeddings[variant]
    same = (person[:, None] == person[None]) & ~np.eye(len(person), dtype=bool)
    able = same.any(1)
    means = unit(same[able] @ outputs)
    photos = np.arange(len(person))
    return Trial(means @ embeddings[ORIGINAL].T, person[able], person, photos[able], photos)

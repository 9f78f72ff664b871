"""Privacy against attackers that are trained on (original, output) pairs of their own people and tested on other people.

Thresholds are calibrated on the attacker's own scores of strangers, among the people it is tested on, so a TAR equal to the FAR
is what guessing gives: chance. The attacker that counts is the one it would pick itself, on people it set aside. Every variant
is attacked in the same way with the same share of the budget.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from diffpriv.attacks.embedding_map import fit_embedding_map
from diffpriv.attacks.pairs import AttackerData, Embed, FacePairs, FittedAttack, choose, separation, split_people
from diffpriv.attacks.views import VIEWS, seen
from diffpriv.metrics.verification import Trial, roc, true_accept_rate
from diffpriv.pipelines.evaluation.faces import ORIGINAL, PROTECTED, EvaluatedFaces
from diffpriv.pipelines.evaluation.judges import Judge, public_recognizer
from diffpriv.pipelines.evaluation.privacy import FARS

TIMES_CHANCE = 2.0  # what an attacker may reach before it counts as having learned something
INVERTER_SHARE = 0.5  # of a variant's seconds; the rest is the fine-tuned recogniser's
VIEWS_SHARE = 0.25  # of all seconds, for finding out which part leaks
LEAST_PEOPLE = 8


class AdaptiveAttacks:
    """All trained attackers over one set of faces.

    Args:
        minutes: CPU minutes for everything that is trained step by step (closed-form maps and embedding are not counted).
    """

    def __init__(self, faces: EvaluatedFaces, judges: list[Judge], *, minutes: float, seed: int) -> None:
        self._faces, self._seed = faces, seed
        self._embed: dict[str, Embed] = {judge.name: _remembering(judge.embed) for judge in judges}
        self._variants = [name for name in faces.looks if name != ORIGINAL]
        self._seconds = minutes * 60 * (1 - VIEWS_SHARE) / len(self._variants)
        self._view_seconds = minutes * 60 * VIEWS_SHARE / len(VIEWS)

    def measure(self, progress: Callable[[str], None]) -> dict[str, Any]:
        """Figures per variant, and which part of the protected faces leaks; JSON values."""
        if len(np.unique(self._faces.person)) < LEAST_PEOPLE:
            return {"skipped": f"fewer than {LEAST_PEOPLE} people: nobody would be left to test a trained attacker on"}
        variants = {}
        for name in self._variants:
            progress(f"adaptive attackers against {name}")
            variants[name] = self._attack(name)
        progress("adaptive attackers: which part leaks")
        data = self._data(PROTECTED)
        return {
            "attacker": {
                "people": len(np.unique(np.concatenate([data.training.persons, data.choosing.persons]))),
                "pairs": len(data.training.persons) + len(data.choosing.persons),
                "tested people": len(np.unique(data.tested.persons)),
                "tested faces": len(data.tested.persons),
            },
            "variants": variants,
            "parts": self._parts(),
        }

    def _data(self, variant: str) -> AttackerData:
        looks = self._faces.looks
        return split_people(FacePairs(looks[ORIGINAL].crops, looks[variant].crops, self._faces.person), seed=self._seed)

    def _attack(self, variant: str) -> dict[str, Any]:
        from diffpriv.attacks.finetuned import FinetunedRecognizer
        from diffpriv.attacks.inverter import train_inverter

        data, seconds = self._data(variant), self._seconds
        public = public_recognizer()
        attacks: list[FittedAttack] = [
            fit_embedding_map(f"linear map on {name}", embed, data.training, data.choosing)
            for name, embed in self._embed.items()
        ]
        tuned = FinetunedRecognizer("fine-tuned recogniser", public)
        attacks.append(tuned.fit(data.training, data.choosing, seconds=seconds * (1 - INVERTER_SHARE), seed=self._seed))
        first = next(iter(self._embed))
        inverter = train_inverter(
            f"inverter read by {first}",
            self._embed[first],
            data.training,
            public,
            seconds=seconds * INVERTER_SHARE,
            seed=self._seed,
        )
        attacks.append(inverter)
        attacks += [inverter.read_by(f"inverter read by {name}", embed) for name, embed in self._embed.items() if name != first]
        chosen = choose(attacks, data.choosing)
        result: dict[str, Any] = {"attackers": {}, "chosen": chosen.name}
        for attack in attacks:
            trial = _trial(attack, data)
            result["attackers"][attack.name] = {
                "separation on people set aside": round(separation(attack, data.choosing), 4),
                "tar": self._rates(trial),
            }
            if attack is chosen:
                kind = "other" if trial.genuine("other").any() else "own"
                result["roc"] = {
                    "pairs": f"{kind} photo",
                    "far": _rounded(roc(trial, kind)[0]),
                    "tar": _rounded(roc(trial, kind)[1]),
                }
                result["groups"] = self._groups(trial, data)
        result["tar"] = result["attackers"][chosen.name]["tar"]
        result["worst"] = {
            far: {
                kind: _largest([one["tar"][far][kind] for one in result["attackers"].values()])
                for kind in ("own photo", "other photo")
            }
            for far in result["tar"]
        }
        return result

    def _rates(self, trial: Trial) -> dict[str, Any]:
        return {
            f"{far:g}": {
                f"{kind} photo": true_accept_rate(trial, kind, far, seed=self._seed).to_json() for kind in ("own", "other")
            }
            for far in FARS
        }

    def _groups(self, trial: Trial, data: AttackerData) -> dict[str, Any]:
        """Per label column and value; each group's own strangers set its threshold."""
        found: dict[str, Any] = {}
        for column, words in self._faces.labels.items():
            mine = words[data.tested_rows]
            found[column] = {str(word): self._rates(trial.of_probes(mine == word)) for word in np.unique(mine) if word}
        return found

    def _parts(self) -> dict[str, Any]:
        """The same attacker shown the whole crop, the face alone, or its surroundings alone, of outputs and of clean photos."""
        from diffpriv.attacks.finetuned import FinetunedRecognizer

        found: dict[str, Any] = {}
        for view in VIEWS:
            data = self._data(PROTECTED)
            training, choosing, tested = (
                FacePairs(seen(one.originals, view), seen(one.outputs, view), one.persons)
                for one in (data.training, data.choosing, data.tested)
            )
            tuned = FinetunedRecognizer("fine-tuned recogniser", public_recognizer())
            attacks: list[FittedAttack] = [
                tuned.fit(training, choosing, seconds=self._view_seconds, seed=self._seed),
                *(fit_embedding_map(f"linear map on {name}", embed, training, choosing) for name, embed in self._embed.items()),
            ]
            chosen = choose(attacks, choosing)
            trial = _trial(chosen, AttackerData(training, choosing, tested, data.tested_rows))
            found[view] = {"attacker": chosen.name, "tar": self._rates(trial)}
        return found


def beats_chance(tar: dict[str, Any]) -> dict[str, list[str]]:
    """Kind of pair -> false-accept rates at which the TAR exceeds TIMES_CHANCE times the rate. Takes a variant's "tar"."""
    found: dict[str, list[str]] = {}
    for far, kinds in tar.items():
        for kind, rate in kinds.items():
            if rate["value"] is not None and rate["value"] > TIMES_CHANCE * float(far):
                found.setdefault(kind, []).append(far)
    return found


def _trial(attack: FittedAttack, data: AttackerData) -> Trial:
    persons, photos = data.tested.persons, np.arange(len(data.tested.persons))
    return Trial(attack.scores(data.tested.outputs, data.tested.originals), persons, persons, photos, photos)


def _largest(rates: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rates, key=lambda rate: -1.0 if rate["value"] is None else float(rate["value"]))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]


def _remembering(embed: Embed) -> Embed:
    """The same judge asked about the same crops (by digest) answers from memory: it is what takes the time."""
    known: dict[bytes, np.ndarray] = {}

    def remembered(crops: np.ndarray) -> np.ndarray:
        names = [hashlib.blake2b(crop.tobytes(), digest_size=16).digest() for crop in crops]
        new = [index for index, name in enumerate(names) if name not in known]
        if new:
            known.update(zip([names[index] for index in new], embed(crops[new]), strict=True))
        return np.stack([known[name] for name in names])

    return remembered

"""What the output is still good for: is there a face, is it where it was, does a model learn from it as from photos."""

from typing import Any

import numpy as np

from diffpriv.metrics.downstream import LEAST, Learned, features, learn, learn_faces
from diffpriv.metrics.geometry import LANDMARKS_NEAR, MEASURES, pose, shift
from diffpriv.metrics.verification import mean, share
from diffpriv.pipelines.evaluation.faces import ORIGINAL, EvaluatedFaces, Looks
from diffpriv.pipelines.evaluation.judges import Judge


def measure_utility(faces: EvaluatedFaces, variant: str, chosen: np.ndarray, seed: int) -> dict[str, Any]:
    """Figures of one variant over the `chosen` faces (a mask), as JSON values."""
    before, after, person = faces.looks[ORIGINAL], faces.looks[variant], faces.person
    counted = chosen & before.found
    moved = shift(before.landmarks, after.landmarks, before.box, after.box)
    near = np.where(after.found, moved.landmarks <= LANDMARKS_NEAR, False).astype(float)

    def of(values: np.ndarray) -> dict[str, Any]:
        return share(values[counted], person[counted], seed=seed).to_json()

    def over(values: np.ndarray) -> dict[str, Any]:
        return mean(values[counted], person[counted], seed=seed).to_json()

    return {
        "faces": int(counted.sum()),
        "detection rate": of(after.found.astype(float)),
        "landmarks near": of(near),
        "landmark shift / eye distance": over(moved.landmarks),
        "box shift (1 - IoU)": over(moved.box),
        "pose and expression": {name: over(moved.pose[:, place]) for place, name in enumerate(MEASURES)},
    }


def measure_attributes(faces: EvaluatedFaces, judges: list[Judge], seed: int) -> dict[str, dict[str, Any]]:
    """Variant -> whether a judge that tells attributes still sees the same apparent age and gender; empty without one."""
    found: dict[str, dict[str, Any]] = {name: {} for name in faces.looks}
    for judge in judges:
        tell = getattr(judge.recognizer, "attributes", None)
        if tell is None:
            continue
        before = tell(faces.looks[ORIGINAL].crops)
        for name, looks in faces.looks.items():
            after = before if name == ORIGINAL else tell(looks.crops)
            same = (before.male > 0.5) == (after.male > 0.5)
            found[name][f"same apparent gender, {judge.name}"] = share(same, faces.person, seed=seed).to_json()
            years = np.abs(before.age - after.age)
            found[name][f"apparent age change / years, {judge.name}"] = mean(years, faces.person, seed=seed).to_json()
    return found


class Downstream:
    """Features of every variant, made once."""

    def __init__(self, faces: EvaluatedFaces, seed: int) -> None:
        self._faces, self._seed = faces, seed
        self.features = {name: features(looks.crops) for name, looks in faces.looks.items()}
        self._empty = features(faces.empty) if len(faces.empty) else np.zeros((0, 1), np.float32)
        self._labels = _annotations(faces)

    def measure(self, variant: str) -> dict[str, Any]:
        """Task -> balanced accuracies; None for a task that has too little to learn from."""
        faces, clean, protected = self._faces, self.features[ORIGINAL], self.features[variant]
        enough = len(self._empty) >= LEAST
        found = {
            "face": learn_faces(clean, protected, self._empty, faces.person, faces.empty_person, self._seed) if enough else None
        }
        for task, (usable, truth) in self._labels.items():
            found[task] = learn(clean[usable], protected[usable], truth[usable], faces.person[usable], self._seed)
        kept = [one.kept for one in found.values() if one is not None and one.kept is not None]
        return {
            "tasks": {task: _learned(one) for task, one in found.items()},
            "kept": round(float(np.mean(kept)), 4) if kept else None,
        }


def _annotations(faces: EvaluatedFaces) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Task -> (usable faces, truth): from the detector's landmarks on originals, and from the dataset's own labels."""
    looks: Looks = faces.looks[ORIGINAL]
    measured = pose(looks.landmarks)
    found = {}
    for task, name in (("smile", "mouth"), ("turn", "yaw")):
        values = measured[:, MEASURES.index(name)]
        usable = np.isfinite(values)
        found[task] = (usable, values > np.median(values[usable]) if usable.any() else usable)
    for column, words in faces.labels.items():
        for word in np.unique(words)[:8]:
            truth = words == word
            if word and LEAST <= truth.sum() <= len(truth) - LEAST:
                found[f"{column} is {word}"] = (words != "", truth)
    return found


def _learned(one: Learned | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "trained on protected, tested on clean": round(one.trained_on_protected, 4),
        "trained on clean, tested on clean": round(one.trained_on_clean, 4),
        "same answer before and after": one.agreement.to_json(),
        "kept": None if one.kept is None else round(one.kept, 4),
        "faces": one.faces,
    }

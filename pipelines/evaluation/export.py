"""What was measured of each face, for other people's tools: a CSV file, and the folder that the package hifd reads.

    write_faces(path, ...)    one row per face: shard, sample, field, person's number, and its measures
    write_hifd(folder, ...)   hifd 0.1 (schema 1.0): originals/, protected/ and baselines, methods.yaml, estimators.yaml
The CSV names samples of the dataset. hifd's folder holds embeddings of original faces, by which people can be found: both are
written for this user alone, and only where they are asked for.
"""

import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffpriv.metrics.geometry import shift
from diffpriv.metrics.images import sharpness
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.faces import ORIGINAL, PROTECTED, EvaluatedFaces
from diffpriv.pipelines.evaluation.privacy import Embeddings

HIFD_SCHEMA = "1.0"
_DETECTOR = "diffpriv-detector"
_RIGHT_EYE, _LEFT_EYE = 0, 1  # of the five landmarks


def write_faces(path: Path, faces: EvaluatedFaces, embedded: Mapping[str, Embeddings]) -> None:
    """Write the table. Empty cells: the detector found no face there.

    Raises:
        MisuseError: the file can't be written.
    """
    before, after = faces.looks[ORIGINAL], faces.looks[PROTECTED]
    moved = shift(before.landmarks, after.landmarks, before.box, after.box)
    columns: dict[str, Any] = {
        "shard": [place.shard for place in faces.places],
        "sample": [place.sample for place in faces.places],
        "field": [place.field for place in faces.places],
        "person": faces.person.tolist(),
        **{column: words.tolist() for column, words in faces.labels.items()},
        "found": after.found.astype(int).tolist(),
        "landmarks": moved.landmarks.tolist(),
        "sharpness_before": [sharpness(crop[None]) for crop in before.crops],
        "sharpness_after": [sharpness(crop[None]) for crop in after.crops],
        **{f"similarity_{name}": _own(one).tolist() for name, one in embedded.items()},
    }
    with _private(path) as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))


def write_hifd(folder: Path, faces: EvaluatedFaces, embedded: Mapping[str, Embeddings]) -> None:
    """Write predictions and configurations for `hifd run-all`: landmarks by the detector, embeddings by every judge.

    Raises:
        MisuseError: the folder can't be written.
    """
    methods = [name for name in faces.looks if name != ORIGINAL]
    for variant in faces.looks:
        source = "original" if variant == ORIGINAL else "deid"
        found = [number for number in range(len(faces)) if faces.looks[variant].found[number]]
        points = {_name(number): _landmarks(faces.looks[variant].landmarks[number]) for number in found}
        _envelope(folder / variant / f"{_DETECTOR}.json", "landmark", source, _DETECTOR, points)
        for judge, one in embedded.items():
            vectors = {_name(number): {"embedding": one[variant][number].tolist()} for number in range(len(faces))}
            _envelope(folder / variant / f"{_file(judge)}.json", "face_embedding", source, judge, vectors)
    tasks = {
        "landmark": {"estimators": [_estimator(_DETECTOR)]},
        "face_embedding": {"estimators": [_estimator(judge) for judge in embedded]},
    }
    configured = [{"name": name, "base_path": name} for name in methods]
    # JSON is YAML.
    _write_json(folder / "methods.yaml", {"original": {"base_path": ORIGINAL}, "methods": configured})
    _write_json(folder / "estimators.yaml", {"tasks": tasks})


def _own(one: Embeddings) -> np.ndarray:
    """Cosine of each output with its own original."""
    first, second = one[ORIGINAL], one[PROTECTED]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: np.ndarray = (first * second).sum(1) / np.maximum(lengths, 1e-12)
    return cosines


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else ""
    # A spreadsheet takes a name that begins like this for a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _name(number: int) -> str:
    return f"{number:06d}"


def _file(judge: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in judge)


def _estimator(name: str) -> dict[str, str]:
    return {"name": name, "orig_json": f"{_file(name)}.json", "deid_json": f"{_file(name)}.json"}


def _landmarks(points: np.ndarray) -> dict[str, Any]:
    eyes = {"left_eye_center": points[_LEFT_EYE].tolist(), "right_eye_center": points[_RIGHT_EYE].tolist()}
    return {"points": points.tolist(), **eyes}


def _envelope(path: Path, task: str, source: str, estimator: str, predictions: dict[str, Any]) -> None:
    head = {"task": task, "source": source, "estimator": estimator, "schema_version": HIFD_SCHEMA}
    _write_json(path, {**head, "predictions": predictions})


def _write_json(path: Path, document: Any) -> None:
    with _private(path) as file:
        json.dump(document, file)


def _private(path: Path) -> Any:
    """A new text file that only this user can read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return os.fdopen(handle, "w", encoding="utf-8", newline="")
    except OSError as error:
        raise MisuseError(f"{path} can't be written: {error.strerror or error}.", advice="Give another folder.") from error

"""One evaluation: read, look, attack, measure. The result is one JSON document; `pipelines.evaluation.report` draws it.

Holds crops of real faces in memory while it runs; the document has numbers only.
"""

import platform
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy as np

from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.pipelines.destination.published import records
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.adaptive import AdaptiveAttacks
from diffpriv.pipelines.evaluation.distribution import measure_distribution
from diffpriv.pipelines.evaluation.faces import ORIGINAL, PROTECTED, EvaluatedFaces, FaceCollector
from diffpriv.pipelines.evaluation.judges import Judge, default_judges, load_judge
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.evaluation.privacy import Embeddings, by_group, measure_privacy
from diffpriv.pipelines.evaluation.reading import PairedPictures
from diffpriv.pipelines.evaluation.self_test import SelfTest
from diffpriv.pipelines.evaluation.settings import EvaluationSettings
from diffpriv.pipelines.evaluation.utility import Downstream, measure_attributes, measure_utility
from diffpriv.pipelines.evaluation.verdict import verdict
from diffpriv.pipelines.threads import fix_threads

VERSION = 1
LEAST_FACES = 2


def evaluate(
    original: str, protected: str, settings: EvaluationSettings, progress: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], EvaluatedFaces]:
    """The document, and the faces it was measured on (for pictures in the report, where they are asked for).

    Raises:
        MisuseError: nothing to pair, no faces, or labels that are not there.
        DetectorError, ModelError: a detector's or judge's weights are missing.
    """
    fix_threads()
    columns = tuple(dict.fromkeys(one for one in (settings.group, *settings.attributes) if one))
    labels = Labels(settings.identity, columns)
    made_by = {record.made_by.get("transform", "") for record in records(protected)}
    judges = [load_judge(spec, made_by) for spec in settings.judges or default_judges()]
    detector = load_detector(settings.detector)
    fix_threads()
    pairs = PairedPictures(original, protected, labels, sample=settings.sample, seed=settings.seed, format=settings.format)
    collector = FaceCollector(
        detector,
        labels,
        columns,
        settings.baselines,
        keep=settings.recovery_faces,
        seed=settings.seed,
        progress=lambda number: progress(f"{number} pictures read") if number % 50 == 0 else None,
    )
    faces = collector.collect(pairs)
    if len(faces) < LEAST_FACES:
        raise MisuseError(
            f"{len(faces)} faces could be compared ({_told(faces, pairs)}).",
            advice="Check that PROTECTED was made from ORIGINAL, and --identity.",
        )
    document: dict[str, Any] = {
        "version": VERSION,
        "made": {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": platform.machine(),
            "detector": detector.identity,
            "judges": [
                {"name": one.name, "identity": one.identity, "flag": one.flag, "independent": one.independent} for one in judges
            ],
            "seed": settings.seed,
            "sample": settings.sample,
        },
        "data": {
            "faces": len(faces),
            "people": len(np.unique(faces.person)),
            "identities known": faces.labelled,
            "counts": dict(faces.counts),
            "unpaired": dict(pairs.unpaired),
        },
    }
    _measure(document, faces, judges, settings, progress)
    document["verdict"] = verdict(document)
    return document, faces


def _measure(
    document: dict[str, Any],
    faces: EvaluatedFaces,
    judges: list[Judge],
    settings: EvaluationSettings,
    progress: Callable[[str], None],
) -> None:
    seed = settings.seed
    document["privacy"], document["utility"], groups = {}, {}, _groups(faces, settings)
    thresholds, embedded = {}, {}
    for judge in judges:
        progress(f"recognition by {judge.name}")
        embeddings = Embeddings(judge, faces)
        thresholds[judge.name], embedded[judge.name] = embeddings.thresholds, embeddings
        document["privacy"][judge.name] = {
            "thresholds": {f"{far:g}": round(value, 4) for far, value in embeddings.thresholds.items()},
            "variants": {name: measure_privacy(embeddings, name, seed) for name in faces.looks},
            "distributions": _distributions(embeddings),
            "groups": {column: by_group(embeddings, PROTECTED, words, seed) for column, words in groups.items()},
        }
    progress("utility")
    downstream = Downstream(faces, seed)
    everyone, attributes = np.ones(len(faces), bool), measure_attributes(faces, judges, seed)
    for name in faces.looks:
        document["utility"][name] = {
            **measure_utility(faces, name, everyone, seed),
            "downstream": downstream.measure(name),
            "attributes": attributes[name],
            "distance to clean faces": measure_distribution(_spaces(embedded, downstream, name), faces.person, seed),
            "groups": {
                column: {str(word): measure_utility(faces, name, words == word, seed) for word in np.unique(words)}
                for column, words in groups.items()
            }
            if name == PROTECTED
            else {},
        }
    if settings.attacker_minutes > 0:
        attacks = AdaptiveAttacks(faces, judges, minutes=settings.attacker_minutes, seed=seed)
        document["adaptive"] = attacks.measure(progress)
    else:
        document["adaptive"] = {"skipped": "no attacker minutes were given"}
    if settings.recovery_faces and faces.samples:
        config = TransformConfig(task=settings.task, preset=settings.preset, model=settings.model)
        test = SelfTest(faces.samples, judges, thresholds, config)
        progress("self-test: recovery")
        document["recovery"] = test.recovery()
        progress("self-test: many keys")
        document["averaging"] = test.averaging(settings.keys_per_face)
        settings_of = f"{settings.task}, {settings.preset}, {settings.model}"
        document["recovery"]["settings"] = settings_of
    else:
        document["recovery"] = {"skipped": "no faces were given to the self-test"}


def _spaces(embedded: dict[str, Embeddings], downstream: Downstream, variant: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Feature spaces to compare distributions in: what each judge sees, and gradient histograms, which no recogniser made."""
    spaces = {name: (one[ORIGINAL], one[variant]) for name, one in embedded.items()}
    return spaces | {"HOG": (downstream.features[ORIGINAL], downstream.features[variant])}


def _groups(faces: EvaluatedFaces, settings: EvaluationSettings) -> dict[str, np.ndarray]:
    words = faces.labels.get(settings.group)
    if words is None:
        return {}
    if not (words != "").any():
        raise MisuseError(f"no sample has the group {settings.group!r}.", advice="Name a column of the manifest, or a field.")
    return {settings.group: np.where(words == "", "unknown", words)}


def _distributions(embeddings: Embeddings, bins: int = 60) -> dict[str, Any]:
    """Histograms (densities) of similarities, for the plot: strangers, genuine clean pairs, outputs and their originals."""
    clean, naive = embeddings.trial(ORIGINAL, ORIGINAL), embeddings.trial(PROTECTED, ORIGINAL)
    sets = {
        "clean, two people": clean.scores[~clean.same_person],
        "clean, two photos of one person": clean.scores[clean.genuine("other")],
        "output and its own original": naive.scores[naive.same_photo],
        "output and another photo of the person": naive.scores[naive.genuine("other")],
    }
    edges = (
        np.linspace(-0.5, 1.0, bins + 1)
        if all(one.min(initial=0) >= -0.5 for one in sets.values())
        else np.linspace(-1, 1, bins + 1)
    )
    return {
        "edges": [round(float(edge), 4) for edge in edges],
        "densities": {
            name: [
                round(float(value), 4) for value in np.histogram(np.clip(values, edges[0], edges[-1]), edges, density=True)[0]
            ]
            for name, values in sets.items()
            if len(values)
        },
    }


def _told(faces: EvaluatedFaces, pairs: PairedPictures) -> str:
    reasons = {**faces.counts, **pairs.unpaired}
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "nothing was read"

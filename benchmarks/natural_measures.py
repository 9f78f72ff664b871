"""What `benchmarks.natural` measures of one face, and of sets of faces; see there for what each number means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from benchmarks.photos import nearest_face, verification_rate
from benchmarks.unseen_networks import FEATURE_SIDE, ApparentLooks, GenderAndAge
from diffpriv.detectors import Detector
from diffpriv.faces.alignment import CANONICAL_SIZE, face_to_crop_matrix, warp_to_crop
from diffpriv.faces.appearance import Appearance, measure_appearance
from diffpriv.faces.compositing import face_mask
from diffpriv.faces.mesh import sample_square, square_matrix
from diffpriv.faces.types import Face
from diffpriv.head_viewer import HeadViewer

HEAD_WIDTH, HEAD_EYES = 6.0, 0.45  # of the square of a head with its surroundings: eye distances; eyes' height in it
CHEEKS_ALIKE = 8.0  # CIELAB
LANDMARKS_NEAR = 0.1  # of the eye distance
AGES_ALIKE = 10.0  # years
SOUND_SHARPNESS = (0.7, 1.4)
RATES = (1e-2, 1e-3)
Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Lookers:
    """detector: finds faces. viewer: dense landmarks. looks: apparent gender and age, or None."""

    detector: Detector
    viewer: HeadViewer
    looks: GenderAndAge | None


@dataclass(frozen=True, eq=False)
class Shot:
    """One face in one picture.

    Attributes:
        crop: (128, 128, 3), aligned to the landmarks seen there.
        placed: the same, aligned to the original's landmarks. head: (224, 224, 3), where the original's head is.
        landmarks: (5, 2) where a detector sees the face, None where it sees none.
        appearance: by dense landmarks. height, unit: of the original's box, and its eye distance, pixels.
        sharp, sharp_native: deviations of the Laplacian, at 128 px and without shrinking.
    """

    crop: np.ndarray
    placed: np.ndarray
    head: np.ndarray
    landmarks: np.ndarray | None
    appearance: Appearance
    looks: ApparentLooks | None
    height: float
    unit: float
    sharp: float
    sharp_native: float


def take_shot(image: np.ndarray, face: Face, before: Shot | None, lookers: Lookers) -> Shot:
    """Look at one face.

    Args:
        image: (height, width, 3) uint8 RGB. face: where the original is. before: the original's shot; None if this is it.
    """
    unit = float(np.linalg.norm(face.landmarks[0] - face.landmarks[1]))
    found = face if before is None else nearest_face(lookers.detector.detect([image])[0], face)
    landmarks = face.landmarks if found is None else found.landmarks
    mesh = lookers.viewer.mesh.read(image, landmarks)
    in_place = face_to_crop_matrix(face.landmarks)
    scale = float(np.sqrt(abs(np.linalg.det(in_place[:, :2]))))
    native = max(1, min(8, round(1 / max(scale, 0.125))))
    placed = warp_to_crop(image, in_place)
    return Shot(
        crop=warp_to_crop(image, face_to_crop_matrix(landmarks)),
        placed=placed,
        head=sample_square(image, square_matrix(face.landmarks, HEAD_WIDTH, FEATURE_SIDE, HEAD_EYES), FEATURE_SIDE),
        landmarks=None if found is None else found.landmarks,
        appearance=measure_appearance(image, mesh),
        looks=lookers.looks.look(image, mesh) if lookers.looks else None,
        height=face.height,
        unit=unit,
        sharp=laplacian_deviation(placed),
        sharp_native=laplacian_deviation(
            warp_to_crop(image, face_to_crop_matrix(face.landmarks, CANONICAL_SIZE * native), CANONICAL_SIZE * native)
        ),
    )


def laplacian_deviation(crop: np.ndarray) -> float:
    """Standard deviation of the brightness's Laplacian inside the face, levels."""
    inside = face_mask(crop.shape[0]) > 0.5
    return float(cv2.Laplacian(crop.mean(2), cv2.CV_64F)[inside].std())


def group_names(shot: Shot) -> dict[str, str]:
    """attribute -> group, of an original."""
    look = shot.appearance
    tone = np.degrees(np.arctan2(look.light - 50, max(look.blue_yellow, 1e-3)))  # individual typology angle
    turn = abs(look.nose_x)
    names = {
        "tone": "dark" if tone < 10 else "medium" if tone < 41 else "light",
        "yaw": "front" if turn < 0.15 else "half" if turn < 0.35 else "three quarters",
        "height": "under 100 px" if shot.height < 100 else "100 to 250 px" if shot.height < 250 else "over 250 px",
    }
    if shot.looks is not None:
        age = shot.looks.age
        names["gender"] = "male" if shot.looks.male > 0.5 else "female"
        names["age"] = "under 20" if age < 20 else "20 to 40" if age < 40 else "over 40"
    return names


def shares(before: Sequence[Shot], after: Sequence[Shot]) -> dict[str, Any]:
    """Every measure of pairs of shots."""
    pairs = list(zip(before, after, strict=True))
    cheeks = np.array([_tone_difference(one, two) <= CHEEKS_ALIKE for one, two in pairs])
    ratio = np.array([two.sharp / max(one.sharp, 1e-6) for one, two in pairs])
    native = np.array([two.sharp_native / max(one.sharp_native, 1e-6) for one, two in pairs])
    found = np.array([two.landmarks is not None for two in after])
    near = np.array([_moved(one, two) <= LANDMARKS_NEAR for one, two in pairs])
    sound = cheeks & near & (ratio > SOUND_SHARPNESS[0]) & (ratio < SOUND_SHARPNESS[1])
    row: dict[str, Any] = {"faces": len(pairs), "cheeks": cheeks, "found": found, "near": near}
    looks = [(one.looks, two.looks) for one, two in pairs if one.looks is not None and two.looks is not None]
    if looks:
        row["gender"] = np.array([(one.male > 0.5) == (two.male > 0.5) for one, two in looks])
        row["age"] = np.array([abs(one.age - two.age) <= AGES_ALIKE for one, two in looks])
        sound = sound & row["gender"]
    row = {name: round(float(np.mean(value)), 4) if isinstance(value, np.ndarray) else value for name, value in row.items()}
    large = np.array([one.height > 250 for one in before])
    row |= {"sharpness": round(float(np.median(ratio)), 3), "sound": round(float(sound.mean()), 4)}
    row["native sharpness"] = round(float(np.median(native)), 3)
    row["native sharpness over 250 px"] = round(float(np.median(native[large])), 3) if large.any() else None
    return row


def _tone_difference(one: Shot, two: Shot) -> float:
    first, second = one.appearance, two.appearance
    names = ("light", "green_red", "blue_yellow")
    return float(np.linalg.norm([getattr(first, name) - getattr(second, name) for name in names]))


def _moved(one: Shot, two: Shot) -> float:
    """Mean shift of the landmarks in eye distances; infinite where no face is found."""
    if one.landmarks is None or two.landmarks is None:
        return float("inf")
    return float(np.linalg.norm(one.landmarks - two.landmarks, axis=1).mean()) / max(one.unit, 1e-6)


def linear_probe(before: np.ndarray, after: np.ndarray, people: np.ndarray, folds: int = 5) -> float:
    """Area under the curve of a logistic regression that tells after from before, on people it was not fitted on.

    Args:
        before, after: (n, dim) features. people: (n,) names.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([before, after])
    labels = np.repeat([0, 1], [len(before), len(after)])
    groups = np.concatenate([people, people])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    splits = GroupKFold(min(folds, len(set(people))))
    scores = cross_val_predict(probe, features, labels, groups=groups, cv=splits, method="decision_function")
    return float(roc_auc_score(labels, scores))


def match_rates(
    embed: Embed, clean: np.ndarray, people: np.ndarray, chosen: np.ndarray, after: np.ndarray, again: np.ndarray | None
) -> dict[str, Any]:
    """How often a recogniser matches, at thresholds set on clean pairs of two people.

    Args:
        clean: crops of all photos; people: of each. chosen: rows of clean that were protected.
        after: their crops as published. again: crops of the first of them under a second key.
    """
    originals, made = embed(clean), embed(after)
    first, second = np.triu_indices(len(clean), 1)
    same = people[first] == people[second]
    pairs = [np.stack([first[mask], second[mask]], 1) for mask in (same, ~same)]
    everything, published = originals @ originals.T, made @ originals.T
    mates = [
        (row, other)
        for row, own in enumerate(chosen)
        for other in np.flatnonzero(people == people[own])
        if other != own  # the photo itself counts as own original
    ]
    rates: dict[str, Any] = {}
    for rate in RATES:
        tar, threshold = verification_rate(everything, pairs[0], pairs[1], rate)
        own = published[np.arange(len(chosen)), chosen] > threshold
        row = {"clean TAR": tar, "own original": float(own.mean())}
        if mates:
            rows, columns = np.array(mates).T
            row["other photo"] = float((published[rows, columns] > threshold).mean())
            clean_share = float((everything[chosen[rows], columns] > threshold).mean())
            row["other photo, share of clean"] = row["other photo"] / max(clean_share, 1e-9)
        if again is not None:
            row["one photo, two keys"] = float(((made[: len(again)] * embed(again)).sum(1) > threshold).mean())
        rates[f"FAR {rate:g}"] = {name: round(value, 4) for name, value in row.items()}
    return rates

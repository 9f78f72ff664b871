"""Labelled photos for benchmarks: a folder with manifest.csv (file, group, person) -> one aligned crop per photo.

The face taken from a photo is the one nearest its middle, weighted by size, since the label names one person only.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, map_points, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face
from diffpriv.transforms import FaceRequest, FaceResult, FaceTransform

FACE_BOX = (20.0, 24.0, 108.0, 124.0)  # of any face in the canonical square, roughly


@dataclass(frozen=True)
class LabelledCrops:
    crops: np.ndarray  # (n, 128, 128, 3) uint8 RGB
    landmarks: np.ndarray  # (n, 5, 2) float32, in the crops
    person: np.ndarray  # (n,) str, "group/person"
    group: np.ndarray  # (n,) str
    photos: int  # photos looked at; those without a face are left out of the arrays

    def take(self, rows: np.ndarray) -> "LabelledCrops":
        return LabelledCrops(self.crops[rows], self.landmarks[rows], self.person[rows], self.group[rows], len(rows))

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Index pairs (i, j), i < j: of one person, and of two people."""
        first, second = np.triu_indices(len(self.crops), 1)
        same = self.person[first] == self.person[second]
        return np.stack([first[same], second[same]], 1), np.stack([first[~same], second[~same]], 1)


def _subject(faces: list[Face], width: int, height: int) -> Face:
    def rank(face: Face) -> float:
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        return face.height - 0.5 * float(np.hypot(x - width / 2, y - height / 2))

    return max(faces, key=rank)


def read_pixels(encoded: bytes) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a JPEG or PNG.

    Raises:
        ValueError: it is no picture.
    """
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("these bytes are no picture")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True, eq=False)
class Photo:
    """A labelled photo. face: its subject's. crop: (128, 128, 3) uint8 RGB, aligned."""

    path: Path
    group: str
    person: str
    face: Face
    crop: np.ndarray

    def read(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB, upright."""
        with Image.open(self.path) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def find_subjects(folder: Path, cache: Path | None = None) -> list[Photo]:
    """Every photo of the manifest in which a face is found, and where; with `cache` that is kept in this .npz."""
    with (folder / "manifest.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    stored: dict[str, np.ndarray] = {}
    if cache is not None and cache.exists():
        with np.load(cache) as archive:
            stored = dict(archive)
    detector = load_detector("centerface") if not stored else None
    photos = []
    for row in rows:
        path, person, name = folder / row["file"], f"{row['group']}/{row['person']}", row["file"]
        if detector is not None:
            with Image.open(path) as opened:
                image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
            faces = detector.detect([image])[0]
            if faces:
                face = _subject(faces, image.shape[1], image.shape[0])
                stored[f"{name}/face"] = np.concatenate([face.box, [face.score], face.landmarks.ravel()])
                stored[f"{name}/crop"] = warp_to_crop(image, face_to_crop_matrix(face.landmarks))
        if f"{name}/face" in stored:
            numbers = stored[f"{name}/face"]
            face = Face(tuple(numbers[:4]), numbers[5:].reshape(5, 2), float(numbers[4]))
            photos.append(Photo(path, row["group"], person, face, stored[f"{name}/crop"]))
    if cache is not None and not cache.exists():
        np.savez(cache, **stored)  # type: ignore[arg-type]
    return photos


def choose_people(photos: Sequence[Photo], limit: int | None) -> np.ndarray:
    """Rows of about `limit` photos, two of each person, people drawn at random (seed 7) among those who have two.

    Args:
        limit: None takes all.
    """
    if limit is None:
        return np.arange(len(photos))
    person = np.array([photo.person for photo in photos])
    random = np.random.default_rng(7)
    rows: list[int] = []
    for name in random.permutation(sorted(set(person.tolist()))):
        own = np.nonzero(person == name)[0]
        if len(own) > 1 and len(rows) + 1 < limit:
            rows += random.choice(own, 2, replace=False).tolist()
    return np.sort(np.array(rows))


def nearest_face(faces: Sequence[Face], to: Face) -> Face | None:
    """The face whose landmarks' middle is nearest, at most one eye distance away; None if there is none."""
    middle = to.landmarks.mean(0)

    def away(face: Face) -> float:
        return float(np.linalg.norm(face.landmarks.mean(0) - middle))

    best = min(faces, key=away, default=None)
    return best if best is not None and away(best) <= np.linalg.norm(to.landmarks[0] - to.landmarks[1]) else None


def load_photos(
    folder: Path, groups: tuple[str, ...] = ("lfw", "deepface", "london"), cache: Path | None = None
) -> LabelledCrops:
    """Detect and align; with `cache` the crops are kept in that .npz (keep it out of the repository)."""
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            arrays = stored["crops"], stored["landmarks"], stored["person"], stored["group"]
            return LabelledCrops(*arrays, int(stored["photos"]))
    detector = load_detector("centerface")
    crops, landmarks, person, group, photos = [], [], [], [], 0
    with (folder / "manifest.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["group"] in groups]
    for row in rows:
        with Image.open(folder / row["file"]) as opened:
            image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        photos += 1
        faces = detector.detect([image])[0]
        if faces:
            face = _subject(faces, image.shape[1], image.shape[0])
            matrix = face_to_crop_matrix(face.landmarks)
            crops.append(warp_to_crop(image, matrix))
            landmarks.append(map_points(face.landmarks, matrix).astype(np.float32))
            person.append(f"{row['group']}/{row['person']}")
            group.append(row["group"])
    data = LabelledCrops(np.stack(crops), np.stack(landmarks), np.array(person), np.array(group), photos)
    if cache is not None:
        np.savez(cache, crops=data.crops, landmarks=data.landmarks, person=data.person, group=data.group, photos=data.photos)
    return data


def verification_rate(similarity: np.ndarray, same: np.ndarray, different: np.ndarray, rate: float) -> tuple[float, float]:
    """(TAR, threshold) at a false-accept rate, from a matrix of similarities and index pairs."""
    impostor = np.sort(similarity[different[:, 0], different[:, 1]])
    threshold = float(impostor[min(len(impostor) - 1, int(np.ceil(len(impostor) * (1 - rate))))])
    return float((similarity[same[:, 0], same[:, 1]] > threshold).mean()), threshold


def publish_crops(
    transform: FaceTransform, data: LabelledCrops, salt: bytes, *, pseudonyms: bool = False
) -> tuple[np.ndarray, list[FaceResult]]:
    """Every crop as a picture of its own, as the job would publish it, (n, 128, 128, 3) uint8, and what was done to it.

    Args:
        salt: 24 bytes; with a face's number they are its seed. pseudonyms: one identity for all photos of a person.
    """
    requests = []
    for number, (crop, landmarks, person) in enumerate(zip(data.crops, data.landmarks, data.person, strict=True)):
        identity = str(person).encode()[:32].ljust(32, b".") if pseudonyms else None
        requests.append(FaceRequest(crop, Face(FACE_BOX, landmarks, 1.0), salt + number.to_bytes(8, "big"), identity))
    results = transform.protect(requests)
    return np.stack([apply_patches(crop, [result.patch]) for crop, result in zip(data.crops, results, strict=True)]), results

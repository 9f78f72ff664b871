"""Labelled photos for benchmarks: a folder with manifest.csv (file, group, person) -> one aligned crop per photo.

The face taken from a photo is the one nearest its middle, weighted by size, since the label names one person only.
"""

import csv
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

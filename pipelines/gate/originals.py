"""What must not be found again: the faces and pictures of a source shard, as hashes, chips and embeddings.

Held in memory for one shard at a time: 4 KB and an embedding per face, 100 bytes per picture; never written anywhere.
"""

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.types import Face
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.gate.copies import face_chip, perceptual_hash
from diffpriv.pipelines.pictures.codec import PictureLimits, decode
from diffpriv.pipelines.records.samples import Sample
from diffpriv.pipelines.steps.lookout import Lookout
from diffpriv.recognition import Recognizer

LIMITS = PictureLimits(max_frames=1 << 30)


@dataclass(frozen=True, eq=False)
class OriginalFace:
    """A face of a source picture; `number` is its row in `Originals.embeddings`."""

    number: int
    sample: str
    field: str
    face: Face = dataclasses.field(repr=False)
    chip: np.ndarray = dataclasses.field(repr=False)


@dataclass(frozen=True)
class OriginalPicture:
    """A source picture: SHA-256 of its bytes, size (width, height), and its faces."""

    sha256: bytes
    size: tuple[int, int]
    faces: tuple[OriginalFace, ...]


class Originals:
    """Everything of one source shard that an output is compared with.

    Attributes:
        pictures: (sample, field) -> picture.
        face_hashes: (n,) uint64 of the faces' chips. picture_hashes: (m,) uint64 of `with_faces`.
        embeddings: (n, dim) float32 of unit length; (n, 0) without a recogniser.
    """

    def __init__(self, samples: Iterable[Sample], lookout: Lookout, recognizer: Recognizer | None) -> None:
        self.pictures: dict[tuple[str, str], OriginalPicture] = {}
        self.faces: list[OriginalFace] = []
        self.with_faces: list[OriginalPicture] = []
        self.samples: list[str] = []
        face_hashes: list[int] = []
        picture_hashes: list[int] = []
        embeddings: list[np.ndarray] = []
        for sample in samples:
            self.samples.append(sample.key)
            for picture in sample.pictures:
                try:
                    pixels = decode(picture.data, LIMITS).pixels
                except BadImageError:
                    continue  # the job has quarantined its sample for the same reason
                faces = lookout.faces(pixels)
                mine = tuple(
                    OriginalFace(len(self.faces) + place, sample.key, picture.field, face, face_chip(pixels, face.landmarks))
                    for place, face in enumerate(faces)
                )
                height, width = pixels.shape[:2]
                entry = OriginalPicture(hashlib.sha256(picture.data).digest(), (width, height), mine)
                self.pictures[sample.key, picture.field] = entry
                if mine:
                    self.with_faces.append(entry)
                    picture_hashes.append(perceptual_hash(pixels))
                    face_hashes += [perceptual_hash(one.chip) for one in mine]
                    self.faces += mine
                    if recognizer is not None:
                        embeddings.append(recognizer.embed(crops(pixels, faces)))
        self.face_hashes = np.array(face_hashes, np.uint64)
        self.picture_hashes = np.array(picture_hashes, np.uint64)
        self.embeddings = np.concatenate(embeddings) if embeddings else np.zeros((len(self.faces), 0), np.float32)


def crops(pixels: np.ndarray, faces: Iterable[Face]) -> np.ndarray:
    """(n, 128, 128, 3) uint8 canonical crops."""
    return np.stack([warp_to_crop(pixels, face_to_crop_matrix(face.landmarks)) for face in faces])

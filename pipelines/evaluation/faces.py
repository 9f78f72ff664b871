"""From paired pictures to aligned crops: the original's, the output's, and those of baselines made from the same original.

Every variant is cut at the original's alignment: the attacker knows where the face was, which favours it. Where identities are
known, one face of a picture carries the label (the one nearest its middle, weighted by size); where they are not, every face
counts and is a person of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from diffpriv.config import TransformConfig
from diffpriv.detectors import Detector
from diffpriv.faces.alignment import CANONICAL_SIZE, face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.evaluation.reading import PicturePair
from diffpriv.pipelines.pictures.codec import decode
from diffpriv.transforms.base import FaceRequest, FaceTransform
from diffpriv.transforms.baselines import BaselineTransform

VIEW_MARGIN = 64  # canonical pixels around the crop in which the detector looks
FACE_CENTRE = (64.0, 77.0)  # in the canonical square
NEAR = 24.0  # canonical pixels: a face found further away is a neighbour
ORIGINAL, PROTECTED = "original", "protected"
_NO_SEED = bytes(32)  # baselines are deterministic without one


@dataclass(eq=False)
class Looks:
    """One variant of all faces. `box` and `landmarks` are in canonical pixels, NaN where the detector found no face."""

    crops: np.ndarray  # (n, 128, 128, 3) uint8
    landmarks: np.ndarray  # (n, 5, 2)
    box: np.ndarray  # (n, 4)

    @property
    def found(self) -> np.ndarray:
        return np.isfinite(self.box[:, 0])


@dataclass(frozen=True)
class Place:
    """Where a face is in the dataset."""

    shard: str
    sample: str
    field: str


@dataclass(eq=False)
class EvaluatedFaces:
    """All that is measured is measured on this.

    Attributes:
        looks: variant -> crops and what the detector sees there; ORIGINAL, PROTECTED and the baselines.
        person: (n,) whole numbers. labelled: whether anybody knows who is who.
        labels: column -> (n,) words; "" where there is none.
        empty: (m, 128, 128, 3) patches of the same originals without a face; empty_person: whose photo.
        samples: pictures with the original face's pixels and place, for the self-test.
        counts: what was read, and what was left out and why.
        places: (n,) where each face is.
    """

    looks: dict[str, Looks]
    person: np.ndarray
    labelled: bool
    labels: dict[str, np.ndarray]
    empty: np.ndarray
    empty_person: np.ndarray
    samples: list[tuple[np.ndarray, Face]] = field(repr=False)
    counts: Counter[str]
    places: list[Place] = field(repr=False)

    def __len__(self) -> int:
        return len(self.person)


class FaceCollector:
    """Args:
    keep: pictures kept whole for the self-test.
    progress: called with the number of pictures read.
    """

    def __init__(
        self,
        detector: Detector,
        labels: Labels,
        columns: Sequence[str],
        baselines: Sequence[str],
        *,
        keep: int,
        seed: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._detector, self._labels, self._columns, self._keep = detector, labels, tuple(columns), keep
        self._baselines: dict[str, FaceTransform] = {
            name: BaselineTransform(TransformConfig(transform=name, recovery="none")) for name in baselines
        }
        self._random = np.random.default_rng(seed)
        self._progress = progress
        self._rows: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
            name: [] for name in (ORIGINAL, PROTECTED, *self._baselines)
        }
        self._people: list[str] = []
        self._words: list[tuple[str, ...]] = []
        self._places: list[Place] = []
        self._empty: list[tuple[np.ndarray, str]] = []
        self._samples: list[tuple[np.ndarray, Face]] = []
        self._counts: Counter[str] = Counter()

    def collect(self, pairs: Iterable[PicturePair]) -> EvaluatedFaces:
        for number, pair in enumerate(pairs):
            if self._labels.knows(pair.key):
                self._add(pair)
            if self._progress is not None:
                self._progress(number + 1)
        names, person = np.unique(np.array(self._people, object).astype(str), return_inverse=True)
        of = {name: index for index, name in enumerate(names)}
        return EvaluatedFaces(
            {name: _stack(rows) for name, rows in self._rows.items()},
            person,
            self._counts["labelled faces"] > 0,
            {column: np.array([words[place] for words in self._words]) for place, column in enumerate(self._columns)},
            np.stack([patch for patch, _ in self._empty]) if self._empty else np.zeros((0, 128, 128, 3), np.uint8),
            np.array([of[name] for _, name in self._empty], int),
            self._samples,
            self._counts,
            self._places,
        )

    def _add(self, pair: PicturePair) -> None:
        self._counts["pictures"] += 1
        try:
            original, protected = decode(pair.original).pixels, decode(pair.protected).pixels
        except BadImageError:
            self._counts["pictures that can't be read"] += 1
            return
        faces = self._detector.detect([original])[0]
        if not faces:
            self._counts["pictures without a face"] += 1
            return
        scale = _common_scale(original, protected)
        if scale is None:
            self._counts["pictures whose shape changed"] += 1
            return
        if scale != 1:
            size = (original.shape[1], original.shape[0])
            protected = cv2.resize(protected, size, interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)
        name = self._labels.person(pair.shard, pair.key, pair.facts)
        chosen = [_subject(faces, original.shape)] if name else faces
        pictures = {ORIGINAL: original, PROTECTED: protected} | {
            kind: covered(original, faces, transform) for kind, transform in self._baselines.items()
        }
        words = tuple(self._labels.value(column, pair.key, pair.facts) for column in self._columns)
        person = name
        for place, face in enumerate(chosen):
            person = name or f"\0{pair.shard}\0{pair.key}\0{pair.field}\0{place}"
            self._counts["labelled faces" if name else "unlabelled faces"] += 1
            self._people.append(person)
            self._words.append(words)
            self._places.append(Place(pair.shard, pair.key, pair.field))
            for kind, picture in pictures.items():
                self._rows[kind].append(look(self._detector, picture, face))
            if len(self._samples) < self._keep:
                self._samples.append((original, face))
        patch = _empty_patch(original, faces, self._random)
        if patch is not None:
            self._empty.append((patch, person))


def covered(picture: np.ndarray, faces: Sequence[Face], transform: FaceTransform) -> np.ndarray:
    """The picture with every face covered, as a job with that transformation publishes it."""
    results = transform.protect([FaceRequest(picture, face, _NO_SEED) for face in faces])
    return apply_patches(picture, [result.patch for result in results])


def look(detector: Detector, picture: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(crop at the face's alignment, landmarks and box that the detector finds there, in canonical pixels, or NaN)."""
    matrix = face_to_crop_matrix(face.landmarks)
    wide = matrix.copy()
    wide[:, 2] += VIEW_MARGIN
    view = warp_to_crop(picture, wide, CANONICAL_SIZE + 2 * VIEW_MARGIN)
    crop = view[VIEW_MARGIN:-VIEW_MARGIN, VIEW_MARGIN:-VIEW_MARGIN].copy()
    centre = np.array(FACE_CENTRE) + VIEW_MARGIN

    def away(found: Face) -> float:
        return float(np.hypot((found.box[0] + found.box[2]) / 2 - centre[0], (found.box[1] + found.box[3]) / 2 - centre[1]))

    near = [found for found in detector.detect([view])[0] if away(found) <= NEAR]
    if not near:
        return crop, np.full((5, 2), np.nan), np.full(4, np.nan)
    best = min(near, key=away)
    return crop, best.landmarks - VIEW_MARGIN, np.array(best.box) - VIEW_MARGIN


def _common_scale(first: np.ndarray, second: np.ndarray) -> float | None:
    """How much larger the second picture is; None where it is not the same picture at another size."""
    height, width = (second.shape[axis] / first.shape[axis] for axis in (0, 1))
    return None if abs(height - width) > 0.02 * max(height, width) else (height + width) / 2


def _subject(faces: Sequence[Face], shape: tuple[int, ...]) -> Face:
    """Whom the picture shows: near its middle, weighted by size."""

    def rank(face: Face) -> float:
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        return face.height - 0.5 * float(np.hypot(x - shape[1] / 2, y - shape[0] / 2))

    return max(faces, key=rank)


def _empty_patch(picture: np.ndarray, faces: Sequence[Face], random: np.random.Generator) -> np.ndarray | None:
    """A square of about the faces' size that overlaps none of them, reduced to a crop's size."""
    height, width = picture.shape[:2]
    side = int(min(height, width, max(32, 1.2 * float(np.median([face.height for face in faces])))))
    for _ in range(12):
        x, y = int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1))
        box = (float(x), float(y), float(x + side), float(y + side))
        if all(overlap(box, face.box) < 0.02 for face in faces):
            square = np.ascontiguousarray(picture[y : y + side, x : x + side])
            return cv2.resize(square, (CANONICAL_SIZE, CANONICAL_SIZE), interpolation=cv2.INTER_AREA)
        side = max(24, int(side * 0.85))
    return None


def _stack(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Looks:
    if not rows:
        return Looks(np.zeros((0, 128, 128, 3), np.uint8), np.zeros((0, 5, 2)), np.zeros((0, 4)))
    crops, landmarks, boxes = zip(*rows, strict=True)
    return Looks(np.stack(crops), np.stack(landmarks), np.stack(boxes))

"""Opens pictures before and after protection, in step: measures their faces, finds what was missed, cuts small pictures.

Both sides of a shard are read as streams in the same order, so that one sample at a time is in memory.
"""

import dataclasses
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.detectors.base import box_landmarks
from diffpriv.faces.alignment import CANONICAL_SIZE, face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import face_mask
from diffpriv.faces.types import Face, overlap
from diffpriv.metrics.geometry import shift
from diffpriv.metrics.images import sharpness
from diffpriv.pipelines.destination.published import records
from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.source import open_source
from diffpriv.pipelines.pictures.codec import decode
from diffpriv.pipelines.records.samples import Sample
from diffpriv.pipelines.review.entries import MISSED, Box, FaceEntry, Measures
from diffpriv.pipelines.steps.boxes import SAME_FACE
from diffpriv.pipelines.steps.detect import Detector
from diffpriv.pipelines.storage import Folder

MARGIN = 0.5  # of the box's longer side on every side of a crop, which is square: a face alone is hard to judge
SAME_PLACE = 0.3  # overlap of a face's box before and after, from which it is the same face
Faces = Mapping[tuple[str, str, str], Sequence[FaceEntry]]


@dataclass(frozen=True, eq=False)
class SamplePair:
    """A sample before and after; `before` is None where nobody gave SRC. Both carry the key that SRC gives the sample."""

    shard: str
    key: str
    before: Sample | None
    after: Sample


def read_pairs(
    dst: str, src: str | None, format: str, wanted: Callable[[str, str], bool], fields: frozenset[str] = frozenset()
) -> Iterator[SamplePair]:
    """Published samples for which `wanted(shard, key)` holds.

    Args:
        fields: what a sample of SRC shall bring along in its `facts`.
    Raises:
        MisuseError: SRC holds no dataset.
    """
    target = Folder(dst)
    source = Folder(open_source(src, format).url) if src is not None else None
    for record in records(dst):
        after = _published(target, record)
        if source is None:
            yield from (SamplePair(one.shard, one.key, None, one) for one in after if wanted(one.shard, one.key))
            continue
        ahead = next(after, None)
        quarantined = set(record.quarantined)
        for before in _samples(source, record.original(source), fields):
            if before.index in quarantined or not before.pictures:
                continue
            while ahead is not None and ahead.key != before.key:
                ahead = next(after, None)
            if ahead is not None and wanted(before.shard, before.key):
                yield SamplePair(before.shard, before.key, before, ahead)


def _published(target: Folder, record: CommitRecord) -> Iterator[Sample]:
    names = record.source_keys() if record.format == "parquet" else []
    for one in _samples(target, record.published(target), frozenset()):
        if names:
            yield dataclasses.replace(one, key=names[one.index])
        elif one.pictures:
            yield one


def _samples(folder: Folder, shard: Shard, fields: frozenset[str]) -> Iterator[Sample]:
    for one in shard_format(shard.format).read(folder, shard, fields):
        if isinstance(one, Sample):
            yield one


def by_picture(faces: Sequence[FaceEntry]) -> dict[tuple[str, str, str], list[FaceEntry]]:
    """Faces by the picture they are in."""
    found: defaultdict[tuple[str, str, str], list[FaceEntry]] = defaultdict(list)
    for face in faces:
        found[face.picture].append(face)
    return dict(found)


def look_at(pair: SamplePair, faces: Faces, finder: Detector | None, labels: Labels, group: str) -> Iterator[FaceEntry]:
    """The sample's faces, measured, and what was perhaps missed in it. Faces whose place nobody knows are left out."""
    published = {picture.field: picture.data for picture in pair.after.pictures}
    original = pair.before or pair.after
    word = labels.value(group, pair.key, dict(original.facts)) if group else ""
    for picture in original.pictures:
        here = [dataclasses.replace(face, group=word) for face in faces.get((pair.shard, pair.key, picture.field), ())]
        before, after = _pixels(picture.data), _pixels(published.get(picture.field, b""))
        if finder is None or before is None:
            yield from (face for face in here if face.box)
            continue
        found = finder.detect([before])[0]
        placed = _placed(here, found)
        if placed and pair.before is not None and after is not None and after.shape == before.shape:
            seen = finder.detect([after])[0]
            yield from (dataclasses.replace(face, measures=measure(face, before, after, found, seen)) for face in placed)
        else:
            yield from placed
        if pair.before is not None and len(placed) == len(here):
            for one in found:
                if all(overlap(one.box, _box(face.box)) < SAME_FACE for face in placed):
                    yield FaceEntry(pair.shard, pair.key, picture.field, None, MISSED, one.box, one.score, group=word)


def _placed(faces: Sequence[FaceEntry], found: Sequence[Face]) -> list[FaceEntry]:
    """Faces with a box: the table's, or where there is no table the detector's, if it finds as many as the job did."""
    if all(face.box for face in faces):
        return list(faces)
    certain = [one for one in found if one.score >= 0.5]
    if len(certain) != len(faces):
        return []
    return [dataclasses.replace(face, box=one.box, score=one.score) for face, one in zip(faces, certain, strict=True)]


def measure(face: FaceEntry, before: np.ndarray, after: np.ndarray, found: Sequence[Face], seen: Sequence[Face]) -> Measures:
    """How one face changed.

    Args:
        found, seen: what the detector finds in the picture before and after.
    """
    box = _box(face.box)
    was, now = _same_face(box, found), _same_face(box, seen)
    landmarks = was.landmarks if was is not None else box_landmarks(box)
    matrix = face_to_crop_matrix(landmarks)
    crops = [warp_to_crop(picture, matrix, CANONICAL_SIZE) for picture in (before, after)]
    inside = face_mask(CANONICAL_SIZE) > 0.5
    means = [cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[inside].mean(0) for crop in crops]
    sharp = [max(sharpness(crop[None]), 1e-3) for crop in crops]
    moved = math.nan
    if was is not None and now is not None:
        points, boxes = (np.array([one.landmarks]) for one in (was, now)), (np.array([one.box]) for one in (was, now))
        moved = float(shift(*points, *boxes).landmarks[0])
    return Measures(moved, float(np.linalg.norm(means[1] - means[0])), math.log2(sharp[1] / sharp[0]), now is not None)


def _same_face(box: Box, faces: Sequence[Face]) -> Face | None:
    near = max(faces, key=lambda one: overlap(box, one.box), default=None)
    return near if near is not None and overlap(box, near.box) >= SAME_PLACE else None


def _pixels(data: bytes) -> np.ndarray | None:
    try:
        return decode(data).pixels
    except BadImageError:
        return None


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = values
    return (x0, y0, x1, y1)


@dataclass(frozen=True)
class Cut:
    """Small pictures of one face: (before, after), each WebP or b"" where there is none; `frame` is the box in the crop."""

    before: bytes = dataclasses.field(repr=False)
    after: bytes = dataclasses.field(repr=False)
    frame: tuple[float, ...]  # x, y, width, height as shares of the crop


def cut_face(sides: Sequence[np.ndarray | None], face: FaceEntry, most_bytes: int) -> Cut:
    """The face and what surrounds it.

    Args:
        sides: pixels of the picture before and after; None where there is none.
    """
    x0, y0, x1, y1 = _box(face.box)
    reach = (0.5 + MARGIN) * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    small, frame = [], (0.0, 0.0, 1.0, 1.0)
    for pixels in sides:
        height, width = pixels.shape[:2] if pixels is not None else (0, 0)
        left, top = max(0, int(x - reach)), max(0, int(y - reach))
        right, bottom = min(width, int(x + reach) + 1), min(height, int(y + reach) + 1)
        if pixels is None or right <= left or bottom <= top:
            small.append(b"")
            continue
        wide, high = right - left, bottom - top
        frame = ((x0 - left) / wide, (y0 - top) / high, (x1 - x0) / wide, (y1 - y0) / high)
        small.append(thumbnail(pixels[top:bottom, left:right], most_bytes))
    return Cut(small[0], small[1], frame)


def picture_of(sample: Sample | None, field: str) -> np.ndarray | None:
    """The decoded picture of a field; None where the sample lacks it or it can't be decoded."""
    for picture in sample.pictures if sample is not None else ():
        if picture.field == field:
            return _pixels(picture.data)
    return None


def thumbnail(pixels: np.ndarray, most_bytes: int) -> bytes:
    """A WebP of at most `most_bytes`, as large as they allow, never larger than the picture; b"" where none is so small."""
    from PIL import Image

    image = Image.fromarray(pixels)
    side = min(max(image.size), int(math.sqrt(most_bytes / 0.06)))
    while side >= 12:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        out = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(out, format="WEBP", quality=80, method=2)
        if out.tell() <= most_bytes:
            return out.getvalue()
        side = int(side * 0.8)
    return b""

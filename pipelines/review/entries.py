"""Faces of a published dataset as a person is shown them: which face, what became of it, how it was measured.

    list_faces(dst)                    every face of every published shard, from the faces tables, else from the commit records
    choose_to_look(faces, most)        which of them are worth opening their pictures for
    choose_to_show(faces, most)        which of those are shown: the worst by every measure, then a spread over what there is
Both choices are deterministic: the same dataset and seed give the same page.
"""

import dataclasses
import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diffpriv.pipelines import layout
from diffpriv.pipelines.destination.published import records
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.storage import Folder

PROTECTED, FILLED, LEFT, MISSED = "protected", "filled", "left", "missed"
Box = tuple[float, float, float, float]
_SIZES = (24, 48, 96, 192)  # pixels of a face's shorter side: where one kind of difficulty ends and another begins
_SCORES = (0.6, 0.8)


@dataclass(frozen=True)
class Measures:
    """How a face changed; NaN where it could not be measured.

    Attributes:
        landmarks: mean distance of the five points over the eye distance; NaN where no face was found in the output.
        tone: distance of the mean colours inside the face, in CIE Lab (about 2 is just visible).
        sharpness: binary logarithm of after over before; -1 is half as sharp.
        found: whether the detector finds a face in the output; None where nobody looked.
    """

    landmarks: float = math.nan
    tone: float = math.nan
    sharpness: float = math.nan
    found: bool | None = None


@dataclass(frozen=True)
class FaceEntry:
    """One face, or one place where a face was perhaps missed.

    Attributes:
        face_index: with the sample it names the face's record; None for one that was missed.
        kind: PROTECTED, FILLED, LEFT or MISSED.
        box: xyxy, upright pixels; empty until the picture was looked at, where no faces table has it.
        similarity: to its original, as the job measured it. reason: why it was filled or left.
        group: the value of the field that the page groups by.
        uncertain: why a person should look, in words; empty for most.
    """

    shard: str
    sample: str
    field: str
    face_index: int | None
    kind: str
    box: tuple[float, ...] = ()
    score: float = math.nan
    similarity: float | None = None
    reason: str = ""
    group: str = ""
    measures: Measures = Measures()
    uncertain: tuple[str, ...] = ()

    @property
    def size(self) -> float:
        """The box's shorter side in pixels; NaN where there is no box yet."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1]) if self.box else math.nan

    @property
    def picture(self) -> tuple[str, str, str]:
        return self.shard, self.sample, self.field

    def judged(self, near_limit: float) -> "FaceEntry":
        """The entry with its reasons for a second look."""
        reasons = []
        synthetic = self.kind == PROTECTED and self.similarity is not None  # a baseline leaves nothing to compare or to find
        if synthetic and self.similarity is not None and self.similarity >= near_limit:
            reasons.append(f"similarity {self.similarity:.2f} is near the limit")
        if synthetic and self.measures.found is False:
            reasons.append("the detector finds no face in the output")
        return dataclasses.replace(self, uncertain=tuple(reasons))


def list_faces(dst: str, *, table_needed: bool = False) -> Iterator[FaceEntry]:
    """Faces in the order of shards and samples.

    Raises:
        MisuseError: nothing is published at DST, or a shard has no faces table and one is needed.
    """
    target = Folder(dst)
    nothing = True
    for record in records(dst):
        nothing = False
        table = _table(target, record.shard)
        if table is not None:
            yield from (_from_row(record.shard, row) for row in table)
        elif table_needed:
            raise MisuseError(
                f"{record.shard} has no faces table.", advice='Run "diffpriv sanitize" with --faces-table into a new DST.'
            )
        else:
            for face in record.faces:
                yield FaceEntry(record.shard, face.sample, face.field, face.face_index, face.status)
    if nothing:
        raise MisuseError(f"{dst} holds no published shard.", advice='Give the DST of a "diffpriv sanitize" run.')


def _table(target: Folder, shard: str) -> list[dict[str, Any]] | None:
    import pyarrow.parquet as pq

    data = target.small.read_if_there(layout.face_table(shard))
    return None if data is None else pq.read_table(io.BytesIO(data)).to_pylist()


def _from_row(shard: str, row: dict[str, Any]) -> FaceEntry:
    return FaceEntry(
        shard,
        row["sample"],
        row["field"],
        row["face_index"],
        row["status"],
        tuple(row["box"] or ()),
        row["score"],
        row["similarity"],
        row["reason"],
    )


def _high(value: Callable[[FaceEntry], float | None]) -> Callable[[FaceEntry], float]:
    """A sorting key that puts the largest first, and what was not measured last."""

    def key(face: FaceEntry) -> float:
        measured = value(face)
        return math.inf if measured is None or math.isnan(measured) else -measured

    return key


BEFORE_LOOKING = {
    "similarity": _high(lambda face: face.similarity if face.kind == PROTECTED else None),
    "score": _high(lambda face: -face.score),
    "size": _high(lambda face: -face.size),
}
WORST = BEFORE_LOOKING | {
    "landmarks": _high(lambda face: math.inf if face.measures.found is False else face.measures.landmarks),
    "tone": _high(lambda face: face.measures.tone),
    "sharpness": _high(lambda face: -face.measures.sharpness),
}


def choose_to_look(faces: Sequence[FaceEntry], most: int, seed: int) -> set[tuple[str, str]]:
    """(shard, sample) whose pictures are opened: everything that was filled or left, the extremes, and a random rest."""
    chosen: dict[FaceEntry, None] = {}
    share = max(1, most // 8)
    for kind in (FILLED, LEFT):
        _take(chosen, (face for face in _shuffled(faces, seed) if face.kind == kind), share)
    for worst in BEFORE_LOOKING.values():
        _take(chosen, sorted((face for face in faces if math.isfinite(worst(face))), key=worst), share)
    _take(chosen, _shuffled(faces, seed), most - len(chosen))
    return {(face.shard, face.sample) for face in chosen}


def choose_to_show(faces: Sequence[FaceEntry], most: int, seed: int) -> list[FaceEntry]:
    """Faces of the page, in the dataset's order."""
    chosen: dict[FaceEntry, None] = {}
    share = max(1, most // 12)
    for kind in (MISSED, FILLED, LEFT):
        _take(chosen, (face for face in _shuffled(faces, seed) if face.kind == kind), share)
    _take(chosen, (face for face in faces if face.uncertain), share)
    for worst in WORST.values():
        _take(chosen, sorted((face for face in faces if math.isfinite(worst(face))), key=worst), share)
    _take(chosen, _spread(_shuffled(faces, seed)), most - len(chosen))
    kept = set(list(chosen)[:most])
    return [face for face in faces if face in kept]


def _take(chosen: dict[FaceEntry, None], faces: Iterable[FaceEntry], most: int) -> None:
    """Add the first `most` of `faces` that are not chosen yet."""
    for face in faces:
        if most <= 0:
            return
        if face not in chosen:
            chosen[face] = None
            most -= 1


def _shuffled(faces: Sequence[FaceEntry], seed: int) -> list[FaceEntry]:
    """An order that does not depend on the order of the faces, so that a dataset that grew keeps most of its sample."""
    return sorted(faces, key=lambda face: pick_order(seed, face.shard, face.sample, face.face_index))


def pick_order(seed: int, *name: object) -> float:
    """A number in [0, 1) that a name always draws."""
    return int.from_bytes(hashlib.sha256(repr((seed, *name)).encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def _spread(faces: Sequence[FaceEntry]) -> Iterator[FaceEntry]:
    """One of each kind of face in turn: size, score and group."""
    bins: defaultdict[Hashable, list[FaceEntry]] = defaultdict(list)
    for face in faces:
        place = (sum(face.size >= edge for edge in _SIZES), sum(face.score >= edge for edge in _SCORES), face.group)
        bins[place].append(face)
    queues = [bins[place] for place in sorted(bins, key=repr)]
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))

"""The records that travel through the job, one dataclass per stage. Data flows one way: each stage adds, none hands back up.

    Sample -> DetectedSample -> ProtectedSample
       \\___________\\____________\\___ QuarantinedSample (at any stage, with a reason; it never carries a picture)

Pictures travel as their encoded bytes and are decoded where they are needed: a 100 KB JPEG is 36 MB of pixels.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from diffpriv.faces.types import Face


@dataclass(frozen=True)
class Picture:
    """One encoded picture of a sample.

    Attributes:
        field: which field of the sample holds it: "jpg", "left.png", a Parquet column.
        data: the file's bytes, never decoded pixels.
    """

    field: str
    data: bytes = dataclasses.field(repr=False)


@dataclass(frozen=True)
class Sample:
    """One record of a shard that was read.

    Attributes:
        shard: the shard's name, its path below SRC.
        index: position among the shard's samples, from 0; with `shard` it identifies the sample.
        key: the dataset's own name for it (`__key__`, a row number, a path); unique in the shard.
        pictures: in the shard's order, possibly none.
        facts: fields that the settings name (`pipelines.facts`), as JSON values.
    """

    shard: str
    index: int
    key: str
    pictures: tuple[Picture, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True)
class QuarantinedSample:
    """A record that leaves the job here: it is not published, and the report says why."""

    shard: str
    index: int
    key: str
    reason: str


@dataclass(frozen=True)
class ShardEnd:
    """The reader's last word on a shard.

    Attributes:
        samples: how many records were read, quarantined ones included.
        problem: why the shard as a whole cannot be used; empty when it can.
        sidecars: what was found beside the pictures that may tell who is in them, and how often (see `pipelines.sidecars`).
    """

    shard: str
    samples: int
    problem: str = ""
    sidecars: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Stop:
    """A worker cannot go on, and neither could any other: a disk is full, a model is missing. Ends the run.

    Attributes:
        shard: empty; every record names one.
        kind: the error's class, for the few that callers tell apart.
    """

    message: str
    kind: str
    shard: str = ""


@dataclass(frozen=True)
class PictureFaces:
    """The faces of one picture, and the picture.

    Attributes:
        faces: of the first frame, in the detector's order.
        left: per face, why it stays as it is; empty text for those that are replaced. Empty altogether: all are.
        first_frame_only: later frames of an animation, or a thumbnail in the metadata, hold faces, so only the first frame may
            be published, written anew.
        stripped: no face of it is replaced, and `picture` is already what is published: the same pixels without metadata.
    """

    picture: Picture
    faces: tuple[Face, ...] = dataclasses.field(repr=False)
    first_frame_only: bool = False
    left: tuple[str, ...] = ()
    stripped: bool = False

    def reason(self, number: int) -> str:
        return self.left[number] if self.left else ""


@dataclass(frozen=True)
class DetectedSample:
    """A sample after detection. Pictures without a face were dropped here: nothing will touch them.

    Attributes:
        pictures: how many pictures the sample has.
        found: those with a face, in the sample's order. Face indices count through them in this order, from 0.
        person: whose photo the sample is, where pseudonyms are per identity; "" where every face gets one of its own.
    """

    shard: str
    index: int
    key: str
    pictures: int
    found: tuple[PictureFaces, ...]
    person: str = dataclasses.field(default="", repr=False)


@dataclass(frozen=True)
class FaceOutcome:
    """What became of one face; facts for the commit record, nothing that points at a person.

    Attributes:
        face_index: counts through the sample's faces from 0; with the sample it names the face record.
        status: "protected", "filled", or "left" as it is, on purpose.
        recoverable: a sealed record exists for it.
        box, score: where it was found (xyxy, upright pixels) and how surely; for the faces table.
    """

    field: str
    face_index: int
    status: str
    reason: str
    attempts: int
    similarity: float | None
    recoverable: bool
    box: tuple[float, ...] = ()
    score: float = 0.0


@dataclass(frozen=True)
class ProtectedSample:
    """A sample whose faces were replaced. `changed` holds new bytes for the pictures that had faces, and only those."""

    shard: str
    index: int
    key: str
    pictures: int
    changed: tuple[Picture, ...]
    faces: tuple[FaceOutcome, ...]

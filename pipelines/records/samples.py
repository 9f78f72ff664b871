"""The records that travel through the job, one dataclass per stage. Data flows one way: each stage adds, none hands back up.

    Sample -> DetectedSample -> ProtectedSample
       \\___________\\____________\\___ QuarantinedSample (at any stage, with a reason; it never carries a picture)

Pictures travel as their encoded bytes and are decoded where they are needed: a 100 KB JPEG is 36 MB of pixels.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from diffpriv.faces.types import Face
from diffpriv.pipelines.errors import DiffPrivError, revived
from diffpriv.pipelines.quarantine import Problem


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
        facts: fields that the settings name (`pipelines.records.fields`), as JSON values.
        lock: the shard's lock (`keys.quorum.ShardLock`, encoded): public and sealed bytes; empty without a custody policy.
    """

    shard: str
    index: int
    key: str
    pictures: tuple[Picture, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, hash=False)
    lock: bytes = dataclasses.field(default=b"", repr=False)


@dataclass(frozen=True)
class QuarantinedSample:
    """A record that leaves the job here: it is not published, and the report says why."""

    shard: str
    index: int
    key: str
    problem: Problem


@dataclass(frozen=True)
class ShardEnd:
    """The reader's last word on a shard.

    Attributes:
        samples: how many records were read, quarantined ones included.
        problem: why the shard as a whole cannot be used; empty when it can.
        sidecars: what was found beside the pictures that may tell who is in them, and how often (`pipelines.formats.sidecars`).
        source_sha256: digest of the bytes that were read, in the form of `Assembled.source_sha256`.
        left_out: (index, field) of what rule `others: drop` keeps back: nobody could look into it.
    """

    shard: str
    samples: int
    problem: str = ""
    sidecars: tuple[tuple[str, int], ...] = ()
    source_sha256: str = ""
    left_out: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Stop:
    """A worker cannot go on, and neither could any other: a disk is full, a model is missing. Ends the run.

    Attributes:
        kind: the error's class. An engine would hand on its text only.
        shard: empty; every record names one.
    """

    kind: str
    message: str
    advice: str = ""
    shard: str = ""

    @classmethod
    def because_of(cls, error: DiffPrivError) -> "Stop":
        return cls(type(error).__name__, error.message, error.advice)

    @property
    def error(self) -> DiffPrivError:
        """To be raised in the driver."""
        return revived(self.kind, self.message, self.advice)


@dataclass(frozen=True)
class PictureFaces:
    """The faces of one picture, and the picture.

    Attributes:
        faces: of the first frame, in the detector's order.
        left: per face, why it stays as it is; empty text for those that are replaced. Empty altogether: all are.
        first_frame_only: later frames of an animation, or a thumbnail in the metadata, hold faces, so only the first frame may
            be published, written anew.
        stripped: no face of it is replaced, and `picture` is already what is published: the same pixels without metadata.
        anew: what is published is written anew, the file around the pixels too.
        camera: if it is written, it goes on saying which camera took it and how.
        frames_dropped: frames and pages after the first that are not published; for an AVIF or HEIC other pictures too.
        gain_maps_dropped: 1 where the picture brings a gain map (Ultra HDR) and is published without.
    """

    picture: Picture
    faces: tuple[Face, ...] = dataclasses.field(repr=False)
    first_frame_only: bool = False
    left: tuple[str, ...] = ()
    stripped: bool = False
    anew: bool = False
    frames_dropped: int = 0
    gain_maps_dropped: int = 0
    camera: bool = False

    def reason(self, number: int) -> str:
        return self.left[number] if self.left else ""


@dataclass(frozen=True)
class DetectedSample:
    """A sample after detection. Pictures without a face were dropped here: nothing will touch them.

    Attributes:
        pictures: how many pictures the sample has.
        found: those with a face, in the sample's order. Face indices count through them in this order, from 0.
        person: whose photo the sample is, where pseudonyms are per identity; "" where every face gets one of its own.
        lock: as in `Sample`.
    """

    shard: str
    index: int
    key: str
    pictures: int
    found: tuple[PictureFaces, ...]
    person: str = dataclasses.field(default="", repr=False)
    lock: bytes = dataclasses.field(default=b"", repr=False)


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
    frames_dropped: int = 0
    gain_maps_dropped: int = 0

"""What the driver learns of a sample: small, public, JSON-able; its new pictures and sealed records lie in staging."""

from dataclasses import dataclass
from typing import Any

from diffpriv.pipelines.records.samples import FaceOutcome, QuarantinedSample


@dataclass(frozen=True)
class Blob:
    """Bytes inside a part (layout at `pipelines.destination.staging`)."""

    part: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class StagedPicture:
    """A changed picture and where its new bytes lie."""

    field: str
    blob: Blob


@dataclass(frozen=True)
class SampleResult:
    """The fate of one sample.

    Attributes:
        reason: why it is in quarantine; empty when it is not. code: the same as the log has it.
        pictures: how many pictures it has, changed or not.
        frames_dropped, gain_maps_dropped: frames, pages and gain maps of them that are not published.
        sealed: the sealed part that holds its face records, shared with the other samples of the part.
    """

    shard: str
    index: int
    key: str
    reason: str = ""
    pictures: int = 0
    changed: tuple[StagedPicture, ...] = ()
    faces: tuple[FaceOutcome, ...] = ()
    sealed: Blob | None = None
    frames_dropped: int = 0
    gain_maps_dropped: int = 0
    code: str = ""

    @classmethod
    def quarantined(cls, sample: QuarantinedSample) -> "SampleResult":
        return cls(sample.shard, sample.index, sample.key, sample.problem.text, code=sample.problem.code)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> "SampleResult":
        """The inverse of `dataclasses.asdict`."""
        return cls(
            **{
                **values,
                "changed": tuple(StagedPicture(one["field"], Blob(**one["blob"])) for one in values["changed"]),
                "faces": tuple(FaceOutcome(**{**one, "box": tuple(one["box"])}) for one in values["faces"]),
                "sealed": Blob(**values["sealed"]) if values["sealed"] else None,
            }
        )

"""The commit record: what is published of one shard, and all that a later reader must know of it.

One JSON file per shard, `layout.commit_record`, the last thing that a commit writes. It holds facts and digests; which face of
which sample has a record in the key file; and why faces were filled or left. No pixels, no embeddings, no key bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffpriv.keys.store import Receipt
from diffpriv.pipelines import layout
from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.ignoring import IGNORED
from diffpriv.pipelines.storage import FileFacts, Folder

RECORD_VERSION = 1


@dataclass(frozen=True)
class PublishedFile:
    """A file of DST as it was published."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PublishedFace:
    """A face of a published sample; with dataset, shard and sample, `face_index` names its record in the key file."""

    sample: str
    face_index: int
    field: str
    status: str
    recoverable: bool
    box: tuple[float, ...] = ()  # where it is in the picture, xyxy; empty in records of before it was kept


@dataclass(frozen=True)
class CommitRecord:
    """One published shard.

    Attributes:
        attempt: a random name that tells this attempt from others at the same shard.
        made_by: stage -> fingerprint of what its workers loaded; the kind of device; the pseudonyms' root.
        source_files: name, size and version of each file of SRC it was made from. source_sha256: of their contents.
        counts: the shard's part of the closing table.
        reasons: "quarantined", "filled", "left" and "covered otherwise" (protected, not as asked) -> reason -> how many.
        quarantined: indices, in SRC, of the samples that were not published.
        sidecars: what was found beside the pictures -> how often. sidecar_rule: what became of it.
        decisions: digest of what reviewers decided about this shard; "" for nothing.
        faces: in the order of samples and face numbers.
        ignore: patterns of names of what was left out of SRC.
        files: what was published. key_file: None where no keys were kept. segment_*: of the audit log; empty until committed.
    """

    dataset: str
    shard: str
    attempt: str
    run: str
    config_digest: str
    format: str
    made_by: dict[str, str]
    source_files: tuple[tuple[str, int, str], ...]
    source_sha256: str
    counts: dict[str, int]
    reasons: dict[str, dict[str, int]]
    quarantined: tuple[int, ...]
    sidecars: dict[str, int]
    sidecar_rule: str
    decisions: str
    highest_similarity: float | None
    faces: tuple[PublishedFace, ...]
    files: tuple[PublishedFile, ...]
    key_file: Receipt | None = None
    segment_id: str = ""
    segment_sha256: str = ""
    ignore: tuple[str, ...] = IGNORED

    def to_json(self) -> dict[str, Any]:
        key_file = self.key_file
        ignore = {} if self.ignore == IGNORED else {"ignore": list(self.ignore)}  # records from before it have none
        return {
            **ignore,
            "version": RECORD_VERSION,
            "dataset": self.dataset,
            "shard": self.shard,
            "attempt": self.attempt,
            "run": self.run,
            "config_digest": self.config_digest,
            "format": self.format,
            "made_by": self.made_by,
            "source": {"files": [list(one) for one in self.source_files], "sha256": self.source_sha256},
            "counts": self.counts,
            "reasons": self.reasons,
            "quarantined": list(self.quarantined),
            "sidecars": self.sidecars,
            "sidecar_rule": self.sidecar_rule,
            "decisions": self.decisions,
            "highest_similarity": self.highest_similarity,
            "faces": [
                [one.sample, one.face_index, one.field, one.status, one.recoverable, list(one.box)] for one in self.faces
            ],
            "files": [[one.name, one.sha256, one.size] for one in self.files],
            "key_file": {"path": key_file.path, "sha256": key_file.sha256, "size": key_file.size} if key_file else None,
            "segment": {"id": self.segment_id, "sha256": self.segment_sha256},
        }

    def encode(self) -> bytes:
        return json.dumps(self.to_json(), indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> "CommitRecord":
        """Raises: ShardError if this is no commit record of this version."""
        try:
            return cls.from_json(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"this is no commit record: {type(error).__name__}.") from None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CommitRecord":
        """The inverse of `to_json`. Raises: ValueError, KeyError or TypeError for anything else."""
        if values["version"] != RECORD_VERSION:
            raise ValueError("another version")
        key_file = values["key_file"]
        return cls(
            dataset=values["dataset"],
            shard=values["shard"],
            attempt=values["attempt"],
            run=values["run"],
            config_digest=values["config_digest"],
            format=values["format"],
            made_by=values["made_by"],
            source_files=tuple((name, size, version) for name, size, version in values["source"]["files"]),
            source_sha256=values["source"]["sha256"],
            counts=values["counts"],
            reasons=values["reasons"],
            quarantined=tuple(values["quarantined"]),
            sidecars=values["sidecars"],
            sidecar_rule=values.get("sidecar_rule", "report"),
            decisions=values.get("decisions", ""),
            highest_similarity=values["highest_similarity"],
            faces=tuple(_face(*one) for one in values["faces"]),
            files=tuple(PublishedFile(*one) for one in values["files"]),
            key_file=Receipt(key_file["path"], key_file["sha256"], key_file["size"]) if key_file else None,
            segment_id=values["segment"]["id"],
            segment_sha256=values["segment"]["sha256"],
            ignore=tuple(values.get("ignore", IGNORED)),
        )

    def published(self, target: Folder) -> Shard:
        """The shard as DST has it: nothing in it is left out by its name."""
        return Shard(self.shard, self.format, tuple(target.facts(file.name) for file in self.files), ())

    def original(self, source: Folder) -> Shard:
        """The shard as SRC has it now."""
        return Shard(self.shard, self.format, tuple(source.facts(name) for name, _, _ in self.source_files), self.ignore)

    def made_from(self, files: tuple[FileFacts, ...]) -> bool:
        """Whether these are the very files of SRC, by name, size and version."""
        return self.source_files == tuple((one.name, one.size, one.version) for one in files)

    # A Parquet sample is called by its row in SRC. Rows in quarantine are missing in DST, so those after them move up.

    def is_published(self, there: Mapping[str, FileFacts]) -> bool:
        """Whether all that the record names is in DST, by name and size.

        Args:
            there: what files of DST are, at least those of this record.
        """
        return all(file.name in there and there[file.name].size == file.size for file in self.files)

    def source_keys(self) -> list[str]:
        """For Parquet: what the rows of DST are called in SRC, in order."""
        dropped = set(self.quarantined)
        return [f"{row:09d}" for row in range(self.counts["samples_in"]) if row not in dropped]

    def published_key(self, sample: str) -> str | None:
        """What DST calls a sample of SRC; None where its row is in quarantine."""
        if self.format != "parquet":
            return sample
        row = int(sample)
        return None if row in set(self.quarantined) else f"{row - sum(index < row for index in self.quarantined):09d}"


def _face(sample: str, index: int, field: str, status: str, recoverable: bool, box: Sequence[float] = ()) -> PublishedFace:
    return PublishedFace(sample, index, field, status, recoverable, tuple(box))


def read_record(target: Folder, shard: str) -> CommitRecord | None:
    """The shard's commit record, or None if it is not committed. A record whose files are gone or cut counts as none."""
    return decode_record(target, target.small.read_if_there(layout.commit_record(shard)))


def decode_record(target: Folder, written: bytes | None) -> CommitRecord | None:
    """The same of what was read already."""
    if written is None:
        return None
    try:
        record = CommitRecord.decode(written)
    except ShardError:
        return None
    return record if record.is_published(target.facts_of([file.name for file in record.files])) else None

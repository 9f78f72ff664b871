"""What every shard format can do: list its samples with their pictures, and write itself again with some pictures changed.

A format reads the source twice, once for the pictures and once to copy everything else, so that nothing but pictures with faces
has to travel or to be held: memory does not grow with the shard.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipelines.images import PICTURE_EXTENSIONS, sniff_format
from pipelines.samples import QuarantinedSample, Sample, ShardEnd
from pipelines.storage import FileFacts, Folder

MAX_PICTURE_BYTES = 256 << 20
SNIFF_BYTES = 16


@dataclass(frozen=True)
class Shard:
    """A unit of work: one file of SRC, or for an image folder a bounded list of them.

    Attributes:
        name: unique in the dataset, the same on every run; for one file its path below SRC.
        format: "webdataset", "parquet" or "folder".
        files: the source files with what they were when listed.
    """

    name: str
    format: str
    files: tuple[FileFacts, ...]

    @property
    def fingerprint(self) -> list[list[str | int]]:
        """The files' names, sizes and versions as plain values, for commit records and comparison."""
        return [[facts.name, facts.size, facts.version] for facts in self.files]


@dataclass(frozen=True)
class OutputFile:
    """A finished file in staging and the name it is published under."""

    staged: str
    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Assembled:
    """A shard ready to be published.

    Attributes:
        samples: how many samples it holds.
        source_sha256: digest of what was read to make it; for several files, of their names and digests.
    """

    files: tuple[OutputFile, ...]
    samples: int
    source_sha256: str


class Edits(Protocol):
    """What differs between the source shard and the published one."""

    @property
    def dropped(self) -> frozenset[int]:
        """Indices of the samples that are in quarantine."""
        ...

    @property
    def changed(self) -> frozenset[tuple[int, str]]:
        """(index, field) of every picture with new bytes."""
        ...

    @property
    def drop_sidecars(self) -> bool:
        """Whether fields that tell who is in a picture are left out (`pipelines.sidecars`, rule "drop")."""
        ...

    def picture(self, index: int, field: str) -> bytes:
        """The new bytes of a changed picture; read when asked for, so that one picture at a time is in memory."""
        ...


class ShardFormat(Protocol):
    def read(
        self, source: Folder, shard: Shard, wanted: frozenset[str] = frozenset()
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        """Samples in order, then one ShardEnd; a problem of the shard as a whole is in the ShardEnd, not raised.

        Args:
            wanted: fields that go into each sample's `facts` where it has them.
        """
        ...

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        """Write the shard under `staging` of `target`, durably.

        Raises:
            ShardError: the source cannot be read as it was, or an edit names a picture that is not there.
            StorageError: the target cannot be written.
        """
        ...


def shard_format(name: str) -> ShardFormat:
    """The format behind a shard's `format`."""
    if name == "webdataset":
        from pipelines.webdataset_io import WebDatasetFormat

        return WebDatasetFormat()
    if name == "parquet":
        from pipelines.parquet_io import ParquetFormat

        return ParquetFormat()
    if name == "folder":
        from pipelines.folder_io import FolderFormat

        return FolderFormat()
    raise ValueError(f"no shard format is called {name!r}")


def data_digest(format: str, files: Sequence[tuple[str, str]]) -> str:
    """A shard's data as one SHA-256: the file's own, or for image folders that of the lines "<sha256>  <name>\\n", sorted by
    name (what `sha256sum` prints).

    Args:
        files: (name, SHA-256) of each.
    """
    if format != "folder":
        return files[0][1]
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def is_picture(name: str, head: bytes) -> bool:
    """Whether a file or field must be treated as a picture: its name promises one, or its first bytes are one.

    A picture under another name would pass unseen, and a text file named .jpg would pass unread; neither may.
    """
    return name.rpartition(".")[2].lower() in PICTURE_EXTENSIONS or sniff_format(head) is not None


def printable(name: str) -> str:
    """A name for messages and records: valid UTF-8 whatever bytes it came from, no control characters."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def name_problem(name: str) -> str:
    """Why a name from a dataset cannot be trusted as one; empty when it can."""
    if "\0" in name:
        return "its name holds a NUL"
    if name.startswith("/") or any(part == ".." for part in name.replace("\\", "/").split("/")):
        return "its name climbs out of the dataset"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return ""

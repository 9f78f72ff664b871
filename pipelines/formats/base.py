"""What every shard format can do: list its samples with their pictures, and write itself again with some pictures changed.

A format reads the source twice, once for the pictures and once to copy everything else, so that nothing but pictures with faces
has to travel or to be held: memory does not grow with the shard.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffpriv.pipelines.formats.ignoring import IGNORED
from diffpriv.pipelines.formats.sidecars import SidecarCount
from diffpriv.pipelines.pictures.codec import PICTURE_EXTENSIONS, sniff_format
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.samples import QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.storage import FileFacts, Folder

MAX_PICTURE_BYTES = 256 << 20
SNIFF_BYTES = 16
NOT_READ = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Shard:
    """A unit of work: one file of SRC, or for an image folder a bounded list of them.

    Attributes:
        name: unique in the dataset, the same on every run; for one file its path below SRC.
        format: "webdataset", "parquet" or "folder".
        files: the source files with what they were when listed.
        ignore: patterns of names of members that are left out (`formats.ignoring`).
    """

    name: str
    format: str
    files: tuple[FileFacts, ...]
    ignore: tuple[str, ...] = IGNORED

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
        """Whether fields that tell who is in a picture are left out (`pipelines.formats.sidecars`, rule "drop")."""
        ...

    @property
    def left_out(self) -> frozenset[tuple[int, str]]:
        """(index, field) of what is not published since nobody could look into it."""
        ...

    @property
    def anew(self) -> bool:
        """Whether headers, footers and metadata of the file around the samples are written anew too."""
        ...

    def picture(self, index: int, field: str) -> bytes:
        """The new bytes of a changed picture; read when asked for, so that one picture at a time is in memory."""
        ...


class ShardFormat(Protocol):
    """How the shards of a format are read, and written again with changes."""

    def read(
        self,
        source: Folder,
        shard: Shard,
        wanted: frozenset[str] = frozenset(),
        beside: SidecarCount | None = None,
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        """Samples in order, then one ShardEnd; a problem of the shard as a whole is in the ShardEnd, not raised.

        Args:
            wanted: fields that go into each sample's `facts` where it has them.
            beside: is shown everything that is no picture.
        """
        ...

    def plain_digest(self, folder: Folder, shard: Shard) -> str:
        """`data_digest` of the same samples in files of our own: equal to that of the files only if they hold nothing else."""
        ...

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        """Write the shard under `staging` of `target`, durably.

        Raises:
            ShardError: the source cannot be read as it was, or an edit names a picture that is not there.
            StorageError: the target cannot be written.
        """
        ...


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


def source_digest(source: Folder, shard: Shard) -> str:
    """`data_digest` of a shard's files as they are now; what is no regular file counts as empty and is not opened."""
    if shard.format != "folder":
        return source.sha256(shard.files[0].name)
    digests = [(file.name, source.sha256(file.name) if file.regular else NOT_READ) for file in shard.files]
    return data_digest(shard.format, digests)


def is_picture(name: str, head: bytes) -> bool:
    """Whether a file or field must be treated as a picture: its name promises one, or its first bytes are one.

    A picture under another name would pass unseen, and a text file named .jpg would pass unread; neither may.
    """
    return name.rpartition(".")[2].lower() in PICTURE_EXTENSIONS or sniff_format(head) is not None


def printable(name: str) -> str:
    """A name for messages and records: valid UTF-8 whatever bytes it came from, no control characters."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def too_large(size: int) -> Problem:
    """For a picture of more than MAX_PICTURE_BYTES."""
    return Problem(Code.TOO_LARGE, f"its picture has {size} bytes; the limit is {MAX_PICTURE_BYTES}")


def name_problem(name: str) -> str:
    """Why a name from a dataset cannot be trusted as one; empty when it can."""
    if "\0" in name:
        return "its name holds a NUL"
    if "\\" in name:
        return "its name holds a backslash, which other systems take for a folder"
    if name.startswith("/") or any(part == ".." for part in name.split("/")):
        return "its name climbs out of the dataset"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return ""

"""WebDataset shards: .tar, plain or compressed, read and written by our own reader and sink.

A sample is the members that share a key: the name up to the first dot of its last part (`a/b.left.jpg` -> key `a/b`, field
`left.jpg`), webdataset's rule. Members of a sample that lie apart are put together within a bounded window; a sample that is
scattered further is quarantined whole. A member with no such dot is a sample of its own with an empty field name, so that
nothing in the archive goes unlooked-at. Directory entries belong to no sample; members that the job ignores by name, such as
AppleDouble halves (`._a.jpg`), are left out and counted.

Out comes the same archive: order, headers and data of every member byte for byte, but for pictures that had faces and samples
in quarantine. Where containers are written anew, headers say name and size and nothing else, and directory entries
go. Compressed archives are compressed again with fixed settings.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffpriv.keys.errors import StorageError
from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.base import (
    MAX_PICTURE_BYTES,
    SNIFF_BYTES,
    Assembled,
    Edits,
    OutputFile,
    Shard,
    is_picture,
    name_problem,
    printable,
    too_large,
)
from diffpriv.pipelines.formats.compression import compressing, compression_of, uncompressed
from diffpriv.pipelines.formats.ignoring import ignored_by
from diffpriv.pipelines.formats.sidecars import (
    HEAD_BYTES,
    MAX_SIDECAR_BYTES,
    SidecarCount,
    is_telling,
    scan_file,
    without_telling,
)
from diffpriv.pipelines.formats.tar import ByteReader, ByteWriter, SeekingReader, TarMember, members, write_end
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.fields import MAX_FACTS_BYTES, pick_from_json
from diffpriv.pipelines.records.samples import Picture, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.storage import Folder, HashingReader, HashingWriter

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
WINDOW = 256  # members over which the members of one sample may be spread
WINDOW_BYTES = 256 << 20


class WebDatasetFormat:
    """See `formats.ShardFormat`. A shard is one archive."""

    def read(
        self,
        source: Folder,
        shard: Shard,
        wanted: frozenset[str] = frozenset(),
        beside: SidecarCount | None = None,
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        name = shard.files[0].name
        count = 0
        beside = beside if beside is not None else SidecarCount()
        try:
            spans = _spans(source, name, shard.ignore)
            with source.open(name) as handle:
                raw = HashingReader(handle)
                with uncompressed(name, raw) as stream:
                    for sample in _samples(shard, stream, spans, beside, wanted):
                        count += 1
                        yield sample
                digest = raw.drain()
        except (ShardError, StorageError) as error:
            yield ShardEnd(shard.name, count, str(error))
            return
        problem = "" if count else "the archive holds no samples."
        yield ShardEnd(shard.name, count, problem, beside.items(), digest, tuple(beside.left_out))

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        name = shard.files[0].name
        staged = f"{staging}/output"
        kept: set[int] = set()
        replaced = set()
        with source.open(name) as handle, target.writing(staged) as out:
            raw, hashed = HashingReader(handle), HashingWriter(out)
            with uncompressed(name, raw) as stream, compressing(name, hashed) as archive:
                counted = _Counting(archive)
                for place, member in _places(stream, shard.ignore):
                    if place is None:
                        if member.folder and not edits.anew and not ignored_by(member.name, shard.ignore):
                            member.copy_to(counted)
                        continue
                    if place.index in edits.dropped:
                        continue
                    kept.add(place.index)
                    if (place.index, place.field) in edits.left_out:
                        continue
                    if (place.index, place.field) in edits.changed:
                        member.replace_in(counted, edits.picture(place.index, place.field), anew=edits.anew)
                        replaced.add((place.index, place.field))
                    elif edits.drop_sidecars:
                        _copy_without_sidecars(place.field, member, counted, anew=edits.anew)
                    else:
                        member.copy_to(counted, anew=edits.anew)
                source_digest = raw.drain()
                write_end(counted, counted.size, 0 if compression_of(name) or edits.anew else raw.size)
        if replaced != edits.changed:
            raise ShardError(f"{shard.name}: {len(edits.changed - replaced)} changed pictures have no place in the archive.")
        return Assembled((OutputFile(staged, shard.name, hashed.sha256(), hashed.size),), len(kept), source_digest)

    def plain_digest(self, folder: Folder, shard: Shard) -> str:
        """SHA-256 of the same members in an archive of our own: that of the file only if it holds nothing else."""
        name = shard.files[0].name
        with folder.open(name) as handle:
            hashed = HashingWriter(None)
            with uncompressed(name, HashingReader(handle)) as stream, compressing(name, hashed) as archive:
                counted = _Counting(archive)
                for member in members(stream):
                    if not member.folder:
                        member.copy_to(counted, anew=True)
                write_end(counted, counted.size, 0)
        return hashed.sha256()


def _copy_without_sidecars(field: str, member: TarMember, out: ByteWriter, *, anew: bool) -> None:
    """Pass on a picture or an ordinary member as it came, and of a telling one what is left of it."""
    head = member.read(SNIFF_BYTES)
    if is_picture(field, head):
        member.copy_to(out, head, anew=anew)
        return
    data = head + member.read() if member.size <= MAX_SIDECAR_BYTES else None
    head = head + member.read(HEAD_BYTES) if data is None else data
    if not is_telling(scan_file(field, data, head)):
        member.copy_to(out, head, anew=anew)
    elif (left := without_telling(field, data)) is not None:
        member.replace_in(out, left, anew=anew)


@dataclass(frozen=True)
class _Place:
    """Where a member belongs: its sample's index and key, its field, and what is wrong with it, if anything."""

    index: int
    key: str
    field: str
    problem: Problem | None


def _places(stream: ByteReader, ignore: Sequence[str]) -> Iterator[tuple[_Place | None, TarMember]]:
    """Members with the sample they belong to (None: a directory, or ignored). Every pass over a shard counts samples here."""
    indices: dict[str, int] = {}
    fields: dict[int, set[str]] = {}
    for member in members(stream):
        named = name_problem(member.name)
        problem = Problem(Code.NAME, named) if named else None
        if (member.folder and not problem) or ignored_by(member.name, ignore):
            yield None, member
            continue
        matched = _NAME.fullmatch(member.name)
        key, field = (matched[1], matched[2]) if matched else (member.name, "")
        index = indices.setdefault(key, len(indices))
        mine = fields.setdefault(index, set())
        if field in mine:
            problem = problem or Problem(Code.AMBIGUOUS, "it has the same field twice")
        mine.add(field)
        if not member.plain:
            problem = problem or Problem(Code.NOT_PLAIN, "it is a link, device or sparse file, not a plain one")
        yield _Place(index, key, field, problem), member


@dataclass
class _Span:
    """Where the members of a sample lie: positions of the first and last, and bytes up to their ends."""

    first: int
    start: int
    last: int
    end: int
    members: int = 1

    @property
    def scattered(self) -> bool:
        apart = self.last - self.first + 1
        return apart > self.members and (apart > WINDOW or self.end - self.start > WINDOW_BYTES)


def _spans(source: Folder, name: str, ignore: Sequence[str]) -> list[_Span]:
    """By sample index; headers are read, data is passed over where the archive lets itself be."""
    spans: list[_Span] = []
    with source.open(name) as handle:
        raw = HashingReader(handle)
        with uncompressed(name, raw) as stream:
            passing = SeekingReader(handle) if stream is raw and handle.seekable() else stream
            bytes_before = 0
            for position, (place, member) in enumerate(_places(passing, ignore)):
                end = bytes_before + member.size
                if place is not None and place.index == len(spans):
                    spans.append(_Span(position, bytes_before, position, end))
                elif place is not None:
                    span = spans[place.index]
                    span.last, span.end, span.members = position, end, span.members + 1
                bytes_before = end
    return spans


@dataclass
class _Open:
    """A sample some of whose members are still to come."""

    key: str
    problem: Problem | None = None
    pictures: list[Picture] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def finished(self, shard: str, index: int) -> Sample | QuarantinedSample:
        if self.problem:
            return QuarantinedSample(shard, index, printable(self.key), self.problem)
        return Sample(shard, index, self.key, tuple(self.pictures), self.facts)


def _samples(
    shard: Shard, stream: ByteReader, spans: list[_Span], beside: SidecarCount, wanted: frozenset[str]
) -> Iterator[Sample | QuarantinedSample]:
    """Samples in the order of their first members."""
    waiting: dict[int, _Open] = {}
    ready: dict[int, Sample | QuarantinedSample] = {}
    following = 0
    for position, (place, member) in enumerate(_places(stream, shard.ignore)):
        if place is None:
            if pattern := ignored_by(member.name, shard.ignore):
                beside.ignored(pattern)
            continue
        if place.index >= len(spans):
            raise ShardError("the archive changed while it was being read.")
        span = spans[place.index]
        if span.scattered:
            if position == span.first:
                apart = "its members lie too far apart in the archive; write it in order, with tar --sort=name"
                ready[place.index] = QuarantinedSample(
                    shard.name, place.index, printable(place.key), Problem(Code.SCATTERED, apart)
                )
        else:
            sample = waiting.setdefault(place.index, _Open(place.key))
            sample.problem = sample.problem or place.problem
            if not sample.problem:
                _take(sample, place, member, beside, wanted)
            if position == span.last:
                ready[place.index] = waiting.pop(place.index).finished(shard.name, place.index)
        while following in ready:
            yield ready.pop(following)
            following += 1
    if waiting or ready:
        raise ShardError("the archive changed while it was being read.")


def _take(sample: _Open, place: _Place, member: TarMember, beside: SidecarCount, wanted: frozenset[str]) -> None:
    """Read one member into its sample."""
    head = member.read(SNIFF_BYTES)
    if is_picture(place.field, head):
        if member.size > MAX_PICTURE_BYTES:
            sample.problem = too_large(member.size)
            return
        sample.pictures.append(Picture(place.field, head + member.read()))
        return
    telling = bool(wanted) and (place.field in wanted or place.field.rpartition(".")[2] == "json")
    reader = _With(head, member)
    keep = MAX_FACTS_BYTES if telling else MAX_SIDECAR_BYTES
    data = beside.member(place.index, place.key, place.field, reader.read, keep=keep)
    if telling and data is not None:
        sample.facts |= _facts(place.field, data, wanted)


class _With:
    """A member's data from its start, after its head was read."""

    def __init__(self, head: bytes, member: TarMember) -> None:
        self._head, self._member = head, member

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._member.read(size)


def _facts(field: str, data: bytes, wanted: frozenset[str]) -> dict[str, Any]:
    """Wanted fields of a member: keys of a JSON object, or the text of a member that is itself wanted ("cls")."""
    if field in wanted:
        return {field: data.decode("utf-8", "replace").strip()}
    return pick_from_json(data, wanted)


class _Counting:
    """Knows how many bytes of the tar were written, compressed or not."""

    def __init__(self, out: ByteWriter) -> None:
        self._out = out
        self.size = 0

    def write(self, data: bytes) -> None:
        self._out.write(data)
        self.size += len(data)

"""WebDataset shards: .tar and .tar.gz, read and written by our own reader and sink.

A sample is a run of members that share a key: the name up to the first dot of its last part (`a/b.left.jpg` -> key `a/b`,
field `left.jpg`), webdataset's rule. A member with no such dot is a sample of its own with an empty field name, so that nothing
in the archive goes unlooked-at. Directory entries belong to no sample and are copied.

Out comes the same archive: order, headers and data of every member byte for byte, but for pictures that had faces and samples
in quarantine. `.tar.gz` is compressed again with fixed settings.
"""

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from keys.errors import StorageError
from pipelines.errors import ShardError
from pipelines.facts import MAX_FACTS_BYTES, pick_from_json
from pipelines.formats import (
    MAX_PICTURE_BYTES,
    SNIFF_BYTES,
    Assembled,
    Edits,
    OutputFile,
    Shard,
    is_picture,
    name_problem,
    printable,
)
from pipelines.samples import Picture, QuarantinedSample, Sample, ShardEnd
from pipelines.sidecars import MAX_SIDECAR_BYTES, SidecarCount, is_telling, scan_file, without_telling
from pipelines.storage import Folder, HashingReader, HashingWriter
from pipelines.tar_stream import ByteReader, ByteWriter, TarMember, members, write_end

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_GZIP_LEVEL = 6


class WebDatasetFormat:
    """See `formats.ShardFormat`. A shard is one archive."""

    def read(
        self, source: Folder, shard: Shard, wanted: frozenset[str] = frozenset()
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        name = shard.files[0].name
        count = 0
        sidecars = SidecarCount()
        try:
            with source.open(name) as handle, _uncompressed(name, HashingReader(handle)) as stream:
                for sample in _samples(shard.name, stream, sidecars, wanted):
                    count += 1
                    yield sample
        except (ShardError, StorageError) as error:
            yield ShardEnd(shard.name, count, str(error))
            return
        yield ShardEnd(shard.name, count, "" if count else "the archive holds no samples.", sidecars.items())

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        name = shard.files[0].name
        staged = f"{staging}/output"
        kept = 0
        replaced = set()
        with source.open(name) as handle, target.writing(staged) as out:
            raw, hashed = HashingReader(handle), HashingWriter(out)
            with _uncompressed(name, raw) as stream, _compressing(name, hashed) as archive:
                counted = _Counting(archive)
                kept_index = -1
                for place, member in _places(stream):
                    if place is not None and place.index in edits.dropped:
                        continue
                    if place is not None and place.index != kept_index:
                        kept, kept_index = kept + 1, place.index
                    if place is not None and (place.index, place.field) in edits.changed:
                        member.replace_in(counted, edits.picture(place.index, place.field))
                        replaced.add((place.index, place.field))
                    elif place is not None and edits.drop_sidecars:
                        _copy_without_sidecars(place.field, member, counted)
                    else:
                        member.copy_to(counted)
                source_digest = raw.drain()
                write_end(counted, counted.size, 0 if _is_gzip(name) else raw.size)
        if replaced != edits.changed:
            raise ShardError(f"{shard.name}: {len(edits.changed - replaced)} changed pictures have no place in the archive.")
        return Assembled((OutputFile(staged, shard.name, hashed.sha256(), hashed.size),), kept, source_digest)


def _copy_without_sidecars(field: str, member: TarMember, out: ByteWriter) -> None:
    """Pass on a picture or an ordinary member as it came, and of a telling one what is left of it."""
    head = member.read(SNIFF_BYTES)
    if is_picture(field, head):
        member.copy_to(out, head)
        return
    data = head + member.read() if member.size <= MAX_SIDECAR_BYTES else None
    if not is_telling(scan_file(field, data)):
        member.copy_to(out, head if data is None else data)
    elif (left := without_telling(field, data)) is not None:
        member.replace_in(out, left)


@dataclass(frozen=True)
class _Place:
    """Where a member belongs: its sample's index and key, its field, and what is wrong with it, if anything."""

    index: int
    key: str
    field: str
    problem: str


def _places(stream: ByteReader) -> Iterator[tuple[_Place | None, TarMember]]:
    """Members with the sample they belong to (None: a directory). Both passes over a shard count samples here."""
    index = -1
    current: str | None = None
    seen: set[str] = set()
    fields: set[str] = set()
    for member in members(stream):
        problem = name_problem(member.name)
        if member.folder and not problem:
            yield None, member
            continue
        matched = _NAME.fullmatch(member.name)
        key, field = (matched[1], matched[2]) if matched else (member.name, "")
        if key != current:
            index += 1
            current = key
            fields = set()
            if key in seen:
                problem = problem or "its key occurs a second time in the shard"
            seen.add(key)
        elif field in fields:
            problem = problem or "it has the same field twice"
        fields.add(field)
        if not member.plain:
            problem = problem or "it is a link, device or sparse file, not a plain one"
        yield _Place(index, key, field, problem), member


def _samples(
    shard: str, stream: ByteReader, sidecars: SidecarCount, wanted: frozenset[str]
) -> Iterator[Sample | QuarantinedSample]:
    index, key, problem = -1, "", ""
    pictures: list[Picture] = []
    facts: dict[str, Any] = {}
    for place, member in _places(stream):
        if place is None:
            continue
        if place.index != index:
            if index >= 0:
                yield _finished(shard, index, key, pictures, facts, problem)
            index, key, problem, pictures, facts = place.index, place.key, "", [], {}
        problem = problem or place.problem
        if problem:
            continue
        head = member.read(SNIFF_BYTES)
        if is_picture(place.field, head):
            if member.size > MAX_PICTURE_BYTES:
                problem = f"its picture has {member.size} bytes; the limit is {MAX_PICTURE_BYTES}"
                continue
            pictures.append(Picture(place.field, head + member.read()))
        else:
            telling = wanted and (place.field in wanted or place.field.rpartition(".")[2] == "json")
            limit = MAX_FACTS_BYTES if telling else MAX_SIDECAR_BYTES
            data = head + member.read() if member.size <= limit else None
            sidecars.file(place.field, data if member.size <= MAX_SIDECAR_BYTES else None)
            if telling and data is not None:
                facts |= _facts(place.field, data, wanted)
    if index >= 0:
        yield _finished(shard, index, key, pictures, facts, problem)


def _facts(field: str, data: bytes, wanted: frozenset[str]) -> dict[str, Any]:
    """Wanted fields of a member: keys of a JSON object, or the text of a member that is itself wanted ("cls")."""
    if field in wanted:
        return {field: data.decode("utf-8", "replace").strip()}
    return pick_from_json(data, wanted)


def _finished(
    shard: str, index: int, key: str, pictures: list[Picture], facts: dict[str, Any], problem: str
) -> Sample | QuarantinedSample:
    if problem:
        return QuarantinedSample(shard, index, printable(key), problem)
    return Sample(shard, index, key, tuple(pictures), facts)


@contextlib.contextmanager
def _uncompressed(name: str, raw: HashingReader) -> Iterator[ByteReader]:
    """The tar stream inside a shard, and gzip's several errors as one of ours."""
    if not _is_gzip(name):
        yield raw
        return
    try:
        with gzip.GzipFile(fileobj=raw) as stream:  # type: ignore[call-overload]
            yield cast(ByteReader, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ShardError(f"the archive's compression is damaged: {error}.") from None


@contextlib.contextmanager
def _compressing(name: str, out: HashingWriter) -> Iterator[ByteWriter]:
    if not _is_gzip(name):
        yield out
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=_GZIP_LEVEL, mtime=0) as stream:
        yield stream


def _is_gzip(name: str) -> bool:
    return name.endswith((".tar.gz", ".tgz"))


class _Counting:
    """Knows how many bytes of the tar were written, compressed or not."""

    def __init__(self, out: ByteWriter) -> None:
        self._out = out
        self.size = 0

    def write(self, data: bytes) -> None:
        self._out.write(data)
        self.size += len(data)

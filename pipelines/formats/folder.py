"""Image folders: the tree stays, every file is a sample of its own, and a shard is a bounded list of files.

A sample's key is the file's path below SRC. Its fields, where the settings name any, are those of a JSON file of its name
(`a/b.json` beside `a/b.jpg`). Files that are no pictures are copied; thumbnail databases, which hold faces no detector was
shown, go to quarantine, and so does whatever is no regular file: links are not followed.
"""

from collections.abc import Iterator
from typing import Any

from diffpriv.keys.errors import StorageError
from diffpriv.pipelines.errors import ShardError, SourceChangedError
from diffpriv.pipelines.formats.base import (
    MAX_PICTURE_BYTES,
    NOT_READ,
    SNIFF_BYTES,
    Assembled,
    Edits,
    OutputFile,
    Shard,
    data_digest,
    is_picture,
    name_problem,
    printable,
    source_digest,
    too_large,
)
from diffpriv.pipelines.formats.sidecars import MAX_SIDECAR_BYTES, SidecarCount, is_telling, scan_file, without_telling
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.fields import MAX_FACTS_BYTES, pick_from_json
from diffpriv.pipelines.records.samples import Picture, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.storage import CHUNK, FileFacts, Folder, HashingReader, HashingWriter

THUMBNAIL_DATABASES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "picasa.db", ".picasa.ini"})


class FolderFormat:
    """See `formats.ShardFormat`. A shard is a list of files; its samples are these in order."""

    def read(
        self,
        source: Folder,
        shard: Shard,
        wanted: frozenset[str] = frozenset(),
        beside: SidecarCount | None = None,
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        beside = beside if beside is not None else SidecarCount()
        digests: list[tuple[str, str]] = []
        for index, facts in enumerate(shard.files):
            try:
                record, digest = _record(source, shard.name, index, facts, beside, wanted)
            except (ShardError, StorageError) as error:
                # A file that vanished after it was listed: the list is wrong, so the shard is, and a rerun lists again.
                yield ShardEnd(shard.name, index, str(error))
                return
            digests.append((facts.name, digest))
            yield record
        digest = data_digest("folder", digests)
        yield ShardEnd(shard.name, len(shard.files), "", beside.items(), digest, tuple(beside.left_out))

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        files, kept = [], 0
        digests: list[tuple[str, str]] = []
        for index, facts in enumerate(shard.files):
            if source.facts(facts.name) != facts:
                raise SourceChangedError(f"{source.describe(facts.name)} changed while its shard was being worked on.")
            if index in edits.dropped:
                digests.append((facts.name, _file_digest(source, facts)))
                continue
            kept += 1
            staged = f"{staging}/output/{index:06d}"
            made, digest = _publish(source, facts, index, edits, target, staged)
            digests.append((facts.name, digest))
            if made is not None:
                files.append(OutputFile(staged, facts.name, *made))
        missing = {index for index, _ in edits.changed} - set(range(len(shard.files)))
        if missing:
            raise ShardError(f"{shard.name}: {len(missing)} changed pictures have no place in the folder.")
        return Assembled(tuple(files), kept, data_digest("folder", digests))

    def plain_digest(self, folder: Folder, shard: Shard) -> str:
        """There is nothing around the files of a folder: the digest is that of the shard as it is."""
        return source_digest(folder, shard)


def _record(
    source: Folder, shard: str, index: int, file: FileFacts, beside: SidecarCount, wanted: frozenset[str]
) -> tuple[Sample | QuarantinedSample, str]:
    """One file as a sample, and the SHA-256 of what was read of it."""
    name = file.name
    named = name_problem(name)
    problem = Problem(Code.NAME, named) if named else None
    if name.rpartition("/")[2].lower() in THUMBNAIL_DATABASES:
        problem = Problem(Code.UNKNOWN_CONTENT, "it is a thumbnail database, whose pictures nobody looked at")
    if not file.regular:
        problem = problem or Problem(Code.NOT_PLAIN, "it is a link, FIFO, socket or device, not a file of its own")
    if problem:
        return QuarantinedSample(shard, index, printable(name), problem), _file_digest(source, file)
    with source.open(name, follow=False) as handle:
        raw = HashingReader(handle)
        head = raw.read(SNIFF_BYTES)
        if not is_picture(name, head):
            first = [head]
            # By kind of file, not by name: a folder of a million captions is one finding.
            kind = f"*.{name.rpartition('/')[2].rpartition('.')[2]}"
            beside.member(index, name, "file", lambda size: first.pop() if first else raw.read(size), kind=kind)
            return Sample(shard, index, name, ()), raw.drain()
        if file.size > MAX_PICTURE_BYTES:
            return QuarantinedSample(shard, index, name, too_large(file.size)), raw.drain()
        picture = Picture("image", head + raw.read())
    return Sample(shard, index, name, (picture,), _facts(source, name, wanted)), raw.sha256()


def _file_digest(source: Folder, file: FileFacts) -> str:
    """What is no regular file counts as empty, and is not opened."""
    if not file.regular:
        return NOT_READ
    with source.open(file.name, follow=False) as handle:
        return HashingReader(handle).drain()


def _publish(
    source: Folder, file: FileFacts, index: int, edits: Edits, target: Folder, staged: str
) -> tuple[tuple[str, int] | None, str]:
    """Write what is published of a file; its (SHA-256, size), None for nothing, and the SHA-256 of the original."""
    changed, left_out = (index, "image") in edits.changed, (index, "file") in edits.left_out
    bare = _without_sidecars(source, file) if edits.drop_sidecars and not changed and not left_out else _AS_IT_IS
    if left_out or bare is None:
        return None, _file_digest(source, file)
    with target.writing(staged) as out, source.open(file.name, follow=False) as handle:
        hashed, raw = HashingWriter(out), HashingReader(handle)
        if changed:
            hashed.write(edits.picture(index, "image"))
        elif bare is not _AS_IT_IS:
            hashed.write(bare)
        else:
            while chunk := raw.read(CHUNK):
                hashed.write(chunk)
        return (hashed.sha256(), hashed.size), raw.drain()


_AS_IT_IS = b"as it is"


def _without_sidecars(source: Folder, file: FileFacts) -> bytes | None:
    """What rule "drop" leaves of a file: the very object _AS_IT_IS for one that is no sidecar, None for nothing."""
    with source.open(file.name, follow=False) as handle:
        head = handle.read(SNIFF_BYTES)
        if is_picture(file.name, head):
            return _AS_IT_IS
        field = f"*.{file.name.rpartition('/')[2].rpartition('.')[2]}"
        head += handle.read(MAX_SIDECAR_BYTES)
        data = head if file.size <= MAX_SIDECAR_BYTES else None
    return without_telling(field, data) if is_telling(scan_file(field, data, head)) else _AS_IT_IS


def _facts(source: Folder, name: str, wanted: frozenset[str]) -> dict[str, Any]:
    """Wanted fields from the JSON file that lies beside a picture under its name."""
    if not wanted:
        return {}
    sidecar = f"{name[: len(name) - len(name.rpartition('/')[2])]}{name.rpartition('/')[2].rpartition('.')[0]}.json"
    if not source.exists(sidecar):
        return {}
    facts = source.facts(sidecar)
    if not facts.regular or facts.size > MAX_FACTS_BYTES:
        return {}
    with source.open(sidecar, follow=False) as handle:
        return pick_from_json(handle.read(), wanted)

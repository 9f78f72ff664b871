"""Image folders: the tree stays, every file is a sample of its own, and a shard is a bounded list of files.

A sample's key is the file's path below SRC. Its fields, where the settings name any, are those of a JSON file of its name
(`a/b.json` beside `a/b.jpg`). Files that are no pictures are copied; thumbnail databases, which hold faces no detector was
shown, go to quarantine.
"""

from collections.abc import Iterator
from typing import Any

from keys.errors import StorageError
from pipelines.errors import ShardError, SourceChangedError
from pipelines.facts import MAX_FACTS_BYTES, pick_from_json
from pipelines.formats import (
    MAX_PICTURE_BYTES,
    SNIFF_BYTES,
    Assembled,
    Edits,
    OutputFile,
    Shard,
    data_digest,
    is_picture,
    name_problem,
    printable,
)
from pipelines.samples import Picture, QuarantinedSample, Sample, ShardEnd
from pipelines.sidecars import MAX_SIDECAR_BYTES, SidecarCount, is_telling, scan_file, without_telling
from pipelines.storage import CHUNK, FileFacts, Folder, HashingWriter

THUMBNAIL_DATABASES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "picasa.db", ".picasa.ini"})


class FolderFormat:
    """See `formats.ShardFormat`. A shard is a list of files; its samples are these in order."""

    def read(
        self, source: Folder, shard: Shard, wanted: frozenset[str] = frozenset()
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        sidecars = SidecarCount()
        for index, facts in enumerate(shard.files):
            try:
                yield self._sample(source, shard.name, index, facts, sidecars, wanted)
            except StorageError as error:
                # A file that vanished after it was listed: the list is wrong, so the shard is, and a rerun lists again.
                yield ShardEnd(shard.name, index, str(error))
                return
        yield ShardEnd(shard.name, len(shard.files), "", sidecars.items())

    def _sample(
        self, source: Folder, shard: str, index: int, file: FileFacts, sidecars: SidecarCount, wanted: frozenset[str]
    ) -> Sample | QuarantinedSample:
        name, size = file.name, file.size
        problem = name_problem(name)
        if name.rpartition("/")[2].lower() in THUMBNAIL_DATABASES:
            problem = "it is a thumbnail database, whose pictures nobody looked at"
        if problem:
            return QuarantinedSample(shard, index, printable(name), problem)
        with source.open(name) as handle:
            head = handle.read(SNIFF_BYTES)
            if not is_picture(name, head):
                # By kind of file, not by name: a folder of a million captions is one finding.
                extension = name.rpartition("/")[2].rpartition(".")[2]
                sidecars.file(f"*.{extension}", head + handle.read() if size <= MAX_SIDECAR_BYTES else None)
                return Sample(shard, index, name, ())
            if size > MAX_PICTURE_BYTES:
                reason = f"its picture has {size} bytes; the limit is {MAX_PICTURE_BYTES}"
                return QuarantinedSample(shard, index, name, reason)
            picture = Picture("image", head + handle.read())
        return Sample(shard, index, name, (picture,), _facts(source, name, wanted))

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        files, kept = [], 0
        for index, facts in enumerate(shard.files):
            if index in edits.dropped:
                continue
            kept += 1
            if source.facts(facts.name) != facts:
                raise SourceChangedError(f"{source.describe(facts.name)} changed while its shard was being worked on.")
            bare = _without_sidecars(source, facts) if edits.drop_sidecars else _AS_IT_IS
            if bare is None:
                continue
            staged = f"{staging}/output/{index:06d}"
            with target.writing(staged) as out:
                hashed = HashingWriter(out)
                if (index, "image") in edits.changed:
                    hashed.write(edits.picture(index, "image"))
                elif bare is not _AS_IT_IS:
                    hashed.write(bare)
                else:
                    with source.open(facts.name) as handle:
                        while chunk := handle.read(CHUNK):
                            hashed.write(chunk)
            files.append(OutputFile(staged, facts.name, hashed.sha256(), hashed.size))
        digest = data_digest("folder", [(facts.name, source.sha256(facts.name)) for facts in shard.files])
        missing = {index for index, _ in edits.changed} - set(range(len(shard.files)))
        if missing:
            raise ShardError(f"{shard.name}: {len(missing)} changed pictures have no place in the folder.")
        return Assembled(tuple(files), kept, digest)


_AS_IT_IS = b"as it is"


def _without_sidecars(source: Folder, file: FileFacts) -> bytes | None:
    """What rule "drop" leaves of a file: the very object _AS_IT_IS for one that is no sidecar, None for nothing."""
    with source.open(file.name) as handle:
        head = handle.read(SNIFF_BYTES)
        if is_picture(file.name, head):
            return _AS_IT_IS
        field = f"*.{file.name.rpartition('/')[2].rpartition('.')[2]}"
        data = head + handle.read() if file.size <= MAX_SIDECAR_BYTES else None
    return without_telling(field, data) if is_telling(scan_file(field, data)) else _AS_IT_IS


def _facts(source: Folder, name: str, wanted: frozenset[str]) -> dict[str, Any]:
    """Wanted fields from the JSON file that lies beside a picture under its name."""
    if not wanted:
        return {}
    sidecar = f"{name[: len(name) - len(name.rpartition('/')[2])]}{name.rpartition('/')[2].rpartition('.')[0]}.json"
    if not source.exists(sidecar) or source.facts(sidecar).size > MAX_FACTS_BYTES:
        return {}
    with source.open(sidecar) as handle:
        return pick_from_json(handle.read(), wanted)

"""What is published at a DST, measured now: for `audit verify`, the data manifest, and whoever reads a DST later."""

import os
from collections.abc import Iterator

from diffpriv.keys.audit.manifest import PublishedShard, encode_manifest
from diffpriv.pipelines import layout
from diffpriv.pipelines.destination.record import CommitRecord, read_record
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.formats.base import Shard, data_digest
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.source import open_source
from diffpriv.pipelines.records.samples import Sample
from diffpriv.pipelines.storage import Folder


def records(dst: str | os.PathLike[str]) -> Iterator[CommitRecord]:
    """Commit records of all shards whose files are there, sorted by shard file."""
    target = Folder(os.fspath(dst))
    for name in target.names(layout.COMMITS):
        record = read_record(target, layout.shard_of_record(name))
        if record is not None:
            yield record


def measure(dst: str | os.PathLike[str]) -> dict[tuple[str, str], str]:
    """(dataset, shard) -> SHA-256 of its data as it is now: what `verify_log(data=...)` takes.

    A shard with a record but missing or cut files is not in the result; a changed one is, with its new digest.
    """
    target = Folder(os.fspath(dst))
    return {(record.dataset, record.shard): measure_shard(target, record) for record in records(dst)}


def measure_shard(target: Folder, record: CommitRecord) -> str:
    """SHA-256 of one shard's data as it is now."""
    return data_digest(record.format, [(file.name, target.sha256(file.name)) for file in record.files])


def manifest(dst: str | os.PathLike[str]) -> bytes:
    """The data manifest of DST, measured now (layout in `keys.audit.manifest`)."""
    return encode_manifest(PublishedShard(*shard, sha256) for shard, sha256 in measure(dst).items())


def unexpected_files(dst: str | os.PathLike[str]) -> list[str]:
    """Files in DST that no commit record explains: nothing of this tool vouches for them."""
    known = {file.name for record in records(dst) for file in record.files}
    return [name for name in Folder(os.fspath(dst)).names() if name not in known and not layout.is_state(name)]


def _record_of(dst: str | os.PathLike[str], shard: str) -> CommitRecord:
    record = read_record(Folder(os.fspath(dst)), shard)
    if record is None:
        raise MisuseError(f"{shard} is not a published shard of {os.fspath(dst)}.")
    return record


def find_face(dst: str | os.PathLike[str], shard: str, sample: str) -> list[tuple[int, str]]:
    """(face index, field) of the faces of one published sample, from its commit record.

    Raises:
        MisuseError: the shard is not published.
    """
    return [(face.face_index, face.field) for face in _record_of(dst, shard).faces if face.sample == sample]


def read_picture(dst: str | os.PathLike[str], shard: str, sample: str, field: str) -> bytes:
    """The bytes of one published picture.

    Raises:
        MisuseError: the shard is not published, or has no such picture.
    """
    record, target = _record_of(dst, shard), Folder(os.fspath(dst))
    return _picture(target, record.published(target), record.published_key(sample), field, sample)


def read_source_picture(src: str, shard: str, sample: str, field: str, format: str = "auto") -> bytes:
    """The bytes of one picture of SRC, for before-and-after sheets. Raises: MisuseError where there is none."""
    source = open_source(src, format)
    folder = Folder(source.url)
    kind = source.format_of(shard) if shard in source.names else "folder"
    file = sample if kind == "folder" else shard
    return _picture(folder, Shard(shard, kind, (folder.facts(file),)), sample, field, sample)


def _picture(folder: Folder, shard: Shard, key: str | None, field: str, asked: str) -> bytes:
    for one in shard_format(shard.format).read(folder, shard):
        if isinstance(one, Sample) and one.key == key:
            for picture in one.pictures:
                if picture.field == field:
                    return picture.data
    raise MisuseError(f"{shard.name} has no picture {field!r} of sample {asked!r}.")

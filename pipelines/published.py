"""What is published at a DST, measured now: for `audit verify`, the data manifest, and whoever reads a DST later."""

import os
from collections.abc import Iterator
from typing import Any

from keys.audit.manifest import PublishedShard, encode_manifest
from pipelines.commit import read_record
from pipelines.errors import MisuseError
from pipelines.formats import Shard, data_digest, shard_format
from pipelines.samples import Sample
from pipelines.sources import STATE_FOLDER, open_source
from pipelines.storage import Folder

COMMITS = f"{STATE_FOLDER}/commits"


def records(dst: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Commit records of all shards whose files are there, sorted by shard file."""
    from urllib.parse import unquote

    folder = Folder(os.fspath(dst))
    for name in folder.names(COMMITS):
        record = read_record(folder, unquote(name.rpartition("/")[2].removesuffix(".json")))
        if record is not None:
            yield record


def measure(dst: str | os.PathLike[str]) -> dict[tuple[str, str], str]:
    """(dataset, shard) -> SHA-256 of its data as it is now: what `AuditLog.verify(data=...)` takes.

    A shard with a record but missing or cut files is not in the result; a changed one is, with its new digest.
    """
    folder = Folder(os.fspath(dst))
    return {
        (record["dataset"], record["shard"]): data_digest(
            record["format"], [(name, folder.sha256(name)) for name, _, _ in record["files"]]
        )
        for record in records(dst)
    }


def manifest(dst: str | os.PathLike[str]) -> bytes:
    """The data manifest of DST, measured now (layout in `keys.audit.manifest`)."""
    return encode_manifest(PublishedShard(*shard, sha256) for shard, sha256 in measure(dst).items())


def strangers(dst: str | os.PathLike[str]) -> list[str]:
    """Files in DST that no commit record explains: nothing of this tool vouches for them."""
    folder = Folder(os.fspath(dst))
    known = {name for record in records(dst) for name, _, _ in record["files"]}
    return [name for name in folder.names() if name not in known and not name.startswith(f"{STATE_FOLDER}/")]


def find_face(dst: str | os.PathLike[str], shard: str, sample: str) -> list[tuple[int, str]]:
    """(face index, field) of the faces of one published sample, from its commit record.

    Raises:
        MisuseError: the shard is not published.
    """
    record = read_record(Folder(os.fspath(dst)), shard)
    if record is None:
        raise MisuseError(f"{shard} is not a published shard of {os.fspath(dst)}.")
    return [(index, field) for name, index, field, *_ in record["faces"] if name == sample]


def read_picture(dst: str | os.PathLike[str], shard: str, sample: str, field: str) -> bytes:
    """The bytes of one published picture.

    Raises:
        MisuseError: the shard is not published, or has no such picture.
    """
    record = read_record(Folder(os.fspath(dst)), shard)
    if record is None:
        raise MisuseError(f"{shard} is not a published shard of {os.fspath(dst)}.")
    folder = Folder(os.fspath(dst))
    files = tuple(folder.facts(name) for name, _, _ in record["files"])
    return _picture(folder, Shard(shard, record["format"], files), published_key(record, sample), field, sample)


def read_source_picture(src: str, shard: str, sample: str, field: str, format: str = "auto") -> bytes:
    """The bytes of one picture of SRC, for before-and-after sheets. Raises: MisuseError where there is none."""
    source = open_source(src, format)
    folder = Folder(source.url)
    if source.format == "folder":
        return _picture(folder, Shard(shard, "folder", (folder.facts(sample),)), sample, field, sample)
    return _picture(folder, Shard(shard, source.format, (folder.facts(shard),)), sample, field, sample)


def _picture(folder: Folder, shard: Shard, key: str, field: str, asked: str) -> bytes:
    for one in shard_format(shard.format).read(folder, shard):
        if isinstance(one, Sample) and one.key == key:
            for picture in one.pictures:
                if picture.field == field:
                    return picture.data
    raise MisuseError(f"{shard.name} has no picture {field!r} of sample {asked!r}.")


def published_key(record: dict[str, Any], sample: str) -> str:
    """Parquet samples are called by their row in SRC; rows before them that went to quarantine are missing in DST."""
    if record["format"] != "parquet":
        return sample
    return f"{int(sample) - sum(index < int(sample) for index in record['quarantined']):09d}"

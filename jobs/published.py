"""What lies in a DST: its commit records, its shards' digests, and the picture of one sample. Reads only."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keys.errors import MisuseError, StorageError
from pipelines.formats import Shard, data_digest, shard_format
from pipelines.samples import Sample
from pipelines.sources import STATE_FOLDER
from pipelines.storage import Folder


@dataclass(frozen=True)
class PublishedFace:
    """Where a face is in the published data.

    Attributes:
        field: the sample's field (member, column) that holds its picture.
    """

    dataset: str
    shard: str
    sample: str
    face_index: int
    field: str
    status: str
    recoverable: bool


def commit_records(folder: Folder) -> list[dict[str, Any]]:
    """Every commit record of a DST, by name.

    Raises:
        MisuseError: there is none; the folder is no DST of this tool, or its run never finished a shard.
        StorageError: a record is damaged.
    """
    records = []
    for name in folder.names(f"{STATE_FOLDER}/commits"):
        try:
            record = json.loads(folder.small.read(name))
            if not {"dataset", "shard", "files", "faces"} <= record.keys():
                raise ValueError
        except (ValueError, AttributeError) as error:
            raise StorageError(f"{folder.describe(name)} is no commit record: it was altered.") from error
        records.append(record)
    if not records:
        raise MisuseError(f"{folder.url} holds no published shard.", advice='Give the DST of a "diffpriv sanitize" run.')
    return records


def published_digests(targets: Sequence[str]) -> dict[tuple[str, str], str]:
    """SHA-256 of each shard as measured now; a shard whose files are gone is left out, so that the audit misses it."""
    digests = {}
    for url in targets:
        folder = Folder(url)
        for record in commit_records(folder):
            try:
                files = [(name, folder.sha256(name)) for name, _, _ in record["files"]]
            except StorageError:
                continue
            kind = _format_of(record["shard"], [name for name, _ in files])
            digests[record["dataset"], record["shard"]] = data_digest(kind, files)
    return digests


def faces_of(folder: Folder) -> Iterator[PublishedFace]:
    """Every face that was found in the dataset, in order."""
    for record in commit_records(folder):
        for sample, index, field, status, recoverable in record["faces"]:
            yield PublishedFace(record["dataset"], record["shard"], sample, index, field, status, recoverable)


def find_face(folder: Folder, shard: str, sample: str, face_index: int) -> PublishedFace:
    """Raises: MisuseError saying what the sample has instead."""
    of_sample = [face for face in faces_of(folder) if (face.shard, face.sample) == (shard, sample)]
    for face in of_sample:
        if face.face_index == face_index:
            return face
    raise MisuseError(
        f"{folder.url} has no face {face_index} of sample {sample} in shard {shard}: {len(of_sample)} faces of it are known.",
        advice='"diffpriv recover faces DST" lists what can be asked for.',
    )


def read_picture(folder: Folder, face: PublishedFace) -> bytes:
    """The encoded published picture that holds a face.

    Raises:
        StorageError: the shard can't be read, or the sample or its picture is not in it.
    """
    for record in commit_records(folder):
        if (record["dataset"], record["shard"]) == (face.dataset, face.shard):
            for sample in _samples(folder, record):
                for picture in sample.pictures:
                    if (sample.key, picture.field) == (face.sample, face.field):
                        return picture.data
    raise StorageError(f"{face.shard} in {folder.url} no longer holds the picture {face.field} of sample {face.sample}.")


def read_pictures(folder: Folder) -> Iterator[tuple[str, list[bytes]]]:
    """(sample, its encoded pictures) of every published sample that has any, in order."""
    for record in commit_records(folder):
        for sample in _samples(folder, record):
            if sample.pictures:
                yield sample.key, [picture.data for picture in sample.pictures]


def _samples(folder: Folder, record: dict[str, Any]) -> Iterator[Sample]:
    names = [name for name, _, _ in record["files"]]
    kind = _format_of(record["shard"], names)
    shard = Shard(record["shard"], kind, tuple(folder.facts(name) for name in names))
    yield from (one for one in shard_format(kind).read(folder, shard) if isinstance(one, Sample))


def _format_of(shard: str, names: Sequence[str]) -> str:
    """The format a published shard has: one file under the shard's own name, or the files of a picture folder."""
    if list(names) != [shard]:
        return "folder"
    return "parquet" if shard.endswith((".parquet", ".pq")) else "webdataset"

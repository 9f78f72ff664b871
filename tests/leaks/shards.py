"""Published shards with something in them, as a job would have left them: data, commit records, originals to compare."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffpriv.pipelines import layout
from diffpriv.pipelines.destination.record import CommitRecord, PublishedFile
from diffpriv.pipelines.formats.base import Shard, data_digest
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.run.report import COUNTS
from diffpriv.pipelines.storage import Folder
from tests.pipelines.datasets import tar_bytes

Field = tuple[str, bytes]  # name, bytes


class NoEdits:
    """Containers written anew, nothing else changed."""

    dropped: frozenset[int] = frozenset()
    changed: frozenset[tuple[int, str]] = frozenset()
    left_out: frozenset[tuple[int, str]] = frozenset()
    drop_sidecars, anew = False, True

    def picture(self, index: int, field: str) -> bytes:
        raise KeyError(field)


class Release:
    """SRC and DST side by side; `put` adds a shard that is the same in both."""

    def __init__(self, folder: Path) -> None:
        self.src, self.dst = folder / "src", folder / "dst"
        self.src.mkdir(parents=True)
        (self.dst / ".diffpriv/commits").mkdir(parents=True)

    def tar(self, name: str, samples: Mapping[str, list[Field]]) -> None:
        members = [(f"{key}.{field}" if field else key, data) for key, fields in samples.items() for field, data in fields]
        self.put(name, "webdataset", {name: tar_bytes(members, "w:gz" if name.endswith("gz") else "w")})

    def parquet(self, name: str, table: pa.Table) -> None:
        out = io.BytesIO()
        pq.write_table(table, out)
        self.put(name, "parquet", {name: out.getvalue()})

    def folder(self, name: str, files: Mapping[str, bytes]) -> None:
        self.put(name, "folder", {f"{name}/{file}": data for file, data in files.items()})

    def put(self, name: str, format: str, files: Mapping[str, bytes], *, plain: bool = True) -> None:
        """Args:
        plain: written as `scrub` writes containers; otherwise byte for byte, as somebody planted it.
        """
        for file, data in files.items():
            for root in (self.src, self.dst):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(data)
        source, target = Folder(str(self.src)), Folder(str(self.dst))
        shard = Shard(name, format, tuple(source.facts(file) for file in files))
        if plain:
            made = shard_format(format).assemble(source, shard, NoEdits(), target, f".diffpriv/staging/{format}")
            for one in made.files:
                target.move(one.staged, one.name)
        self._commit(shard, files)

    def _commit(self, shard: Shard, files: Mapping[str, bytes]) -> None:
        there = {file: (self.dst / file).read_bytes() for file in files}
        record = CommitRecord(
            dataset="planted",
            shard=shard.name,
            attempt="once",
            run="planted",
            config_digest="0" * 64,
            format=shard.format,
            made_by={"transform": "fill/1"},
            source_files=tuple((file.name, file.size, file.version) for file in shard.files),
            source_sha256=data_digest(shard.format, [(name, hashlib.sha256(data).hexdigest()) for name, data in files.items()]),
            counts=dict.fromkeys(COUNTS, 0) | {"samples_in": 5000},
            reasons={"quarantined": {}, "filled": {}, "left": {}},
            quarantined=(),
            sidecars={},
            sidecar_rule="report",
            decisions="",
            highest_similarity=None,
            faces=(),
            files=tuple(PublishedFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in there.items()),
        )
        (self.dst / layout.commit_record(shard.name)).write_text(json.dumps(record.to_json()))


def column(data: bytes) -> pa.Array:
    """One value: a string column for text, else a binary one."""
    try:
        return pa.array([data.decode()], pa.string())
    except UnicodeDecodeError:
        return pa.array([data], pa.binary())


def odd_tar(data: bytes, *, pax: dict[str, str] | None = None, uname: str = "", comment: str = "") -> bytes:
    """A tar of one text member with something in its headers."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": comment} if comment else {}
    ) as tar:
        info = tarfile.TarInfo("a.txt")
        info.size, info.uname, info.pax_headers = len(data), uname, pax or {}
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()

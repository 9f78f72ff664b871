"""For other people's pipelines: faces of single pictures or of rows that somebody else reads and writes.

    protect_image(data, **settings)                      one picture
    Protector(**settings).rows([{...}, ...])             rows as mappings
    dataset.map_batches(ProtectBatch, fn_constructor_kwargs=settings, ...)      Ray Data (pyarrow or numpy batches)
    hugging_face.map(ProtectBatch(**settings), batched=True, ...)               Hugging Face datasets
    pipeline | ProtectRows(**settings)                   Beam (`pipelines.rows.beam_transform`)

Settings are those of `pipelines.config.JobConfig` without src and dst, and `image` and `key`, the columns with the picture and
with the row's name. What happens to keys:

    keys=URL, audit=URL   our sink: key file durable -> audit segment durable -> only then the rows are handed on. Every call is
                          a "shard" of its own in the key store, named in the row; a call that is repeated makes another.
                          So no protected row exists without its record, whatever is killed; records without rows may.
    neither               yours: each row carries its sealed records (`diffpriv_sealed`); `key_file(rows)` makes a key file of
                          them. They are locked to the recipients and may travel; whether they last is up to you.

Columns of a row that comes back: the picture's, with new bytes, or None where the row is in quarantine; and
    diffpriv_faces   JSON list, one object per face: face_index, status, reason, box, score, attempts, similarity, recoverable
    diffpriv_reason  why the row is in quarantine; "" where it is not
    diffpriv_shard   name of the key file in our sink
    diffpriv_sealed  bytes (layout at `pipelines.destination.staging.encode_sealed`); b"" without faces, or with our sink
Everything else in the row is handed on as it came; the settings that read fields (boxes, consent, pseudonym) read them there.
"""

import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from diffpriv.keys.audit.events import commit_names, run_started, sample_quarantined, shard_committed
from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import StorageError
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.recipients import Recipient, check_recipients
from diffpriv.keys.sealing import SealedPart
from diffpriv.keys.sources import KeySource, RandomKeySource
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.assemble import custody_facts
from diffpriv.pipelines.destination.commit import segment_id
from diffpriv.pipelines.destination.staging import decode_sealed, encode_sealed
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.formats.base import MAX_PICTURE_BYTES, data_digest
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.fields import pick
from diffpriv.pipelines.records.samples import DetectedSample, Picture, ProtectedSample, QuarantinedSample, Sample
from diffpriv.pipelines.run.checks import check_policy, check_serving_policy, with_root_id
from diffpriv.pipelines.run.worker import make_lock
from diffpriv.pipelines.steps.finder import Finder
from diffpriv.pipelines.steps.transformer import Replacer
from diffpriv.pipelines.storage import Folder

ROW = "rows"  # stands for the places that only a whole job has
ADDED = ("diffpriv_faces", "diffpriv_reason", "diffpriv_shard", "diffpriv_sealed")


@dataclass(frozen=True)
class ProtectedImage:
    """One picture after protection.

    Attributes:
        data: its new bytes; the old ones where nobody is in it; None where it is in quarantine, for `reason`.
        faces: as in `diffpriv_faces`.
        shard, sealed: as in the columns of these names.
    """

    data: bytes | None
    faces: list[dict[str, Any]]
    reason: str
    shard: str
    sealed: bytes = dataclasses.field(repr=False)


class Protector:
    """Detector, transformation and keys in one process. Pickles as its settings alone, and loads its models where it is used.

    Args:
        image, key: names of the columns with the picture (bytes, or a mapping with `bytes` or the `path` of a local file) and
            with the row's name, which need not be unique; rows have numbers where no `key` is given.
        paths: the folder in which rows may name files; links that lead out of it are not followed. Without one, a row that
            names a file is in quarantine: whoever wrote the rows must not choose what is read here.
        key_source: for tests; random keys by default.
        settings: of `JobConfig`, `src` and `dst` left out. `dataset` is required.
    Raises:
        MisuseError: a setting is wrong, or one of keys and audit is given without the other.
    """

    def __init__(
        self,
        *,
        image: str = "image",
        key: str | None = None,
        paths: str | os.PathLike[str] | None = None,
        key_source: KeySource | None = None,
        **settings: Any,
    ) -> None:
        self._paths = os.path.realpath(paths) if paths is not None else None
        self._arguments = {"image": image, "key": key, "paths": self._paths, **settings}
        if "dataset" not in settings:
            raise MisuseError("rows have no dataset's name of their own: give `dataset`.")
        if bool(settings.get("keys")) != bool(settings.get("audit")):
            raise MisuseError("our sink needs a key store and an audit log: give both `keys` and `audit`, or neither.")
        values = {**settings, "keys": settings.get("keys") or ROW, "audit": settings.get("audit") or ROW}
        self.config = with_root_id(JobConfig.from_mapping({"src": ROW, "dst": ROW, **values}))
        self._image, self._key = image, key
        if self.config.keeps_keys:
            check_recipients([Recipient.load(path) for path in self.config.recipients])
            policy = check_policy(self.config)
            if settings.get("audit"):
                check_serving_policy(self.config, policy, None)
        self._sink = _Sink(self.config) if settings.get("keys") else None
        self._keys: KeySource = key_source or RandomKeySource()
        self._finder: Finder | None = None
        self._replacer: Replacer | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), self._arguments)

    def image(self, data: bytes, *, key: str = "image", **fields: Any) -> ProtectedImage:
        """Protect one picture; `fields` are what a row would hold beside it."""
        (done,) = self._protect([(key, data, fields)])
        return done

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Protect rows; one comes back for each, in order. All of them are in one call's sink entry."""
        if not rows:
            return []
        names = [str(row[self._key]) if self._key else f"{number:06d}" for number, row in enumerate(rows)]
        values = [row[self._image] for row in rows]
        encoded = [_encoded(value, self._paths) for value in values]
        done = self._protect(list(zip(names, encoded, rows, strict=True)))
        return [
            {
                **row,
                self._image: _like(value, one.data),
                "diffpriv_faces": json.dumps(one.faces),
                "diffpriv_reason": one.reason,
                "diffpriv_shard": one.shard,
                "diffpriv_sealed": one.sealed,
            }
            for row, value, one in zip(rows, values, done, strict=True)
        ]

    def _protect(self, rows: Sequence[tuple[str, bytes | Problem, Mapping[str, Any]]]) -> list[ProtectedImage]:
        finder = self._finder = self._finder or Finder(self.config)
        replacer = self._replacer = self._replacer or Replacer(self.config, lambda: self._keys)
        context = ShardContext(self.config.dataset, f"rows/{uuid.uuid4().hex}", self.config.digest())
        samples = [self._sample(context, number, *row) for number, row in enumerate(_distinct(rows))]
        lock = make_lock(self.config, context)
        looked = finder.detect([dataclasses.replace(one, lock=lock) for one in samples if isinstance(one, Sample)])
        found = [one for one in looked if isinstance(one, DetectedSample)]
        part: SealedPart | None = None  # of all rows, for our sink
        sealed: dict[str, SealedPart] = {}  # or one per row, for somebody else's
        protected: list[ProtectedSample | QuarantinedSample] = []
        if not found:
            pass
        elif self._sink is not None:
            protected, part = replacer.replace(found, context)
        else:
            protected, sealed = replacer.replace_each(found, context)
        bad = [one for one in (*samples, *looked, *protected) if isinstance(one, QuarantinedSample)]
        good = [one for one in protected if isinstance(one, ProtectedSample)]
        data = {one.index: one.pictures[0].data for one in samples if isinstance(one, Sample)}
        data |= {one.index: picture.data for one in good for picture in one.changed}
        if self._sink is not None:
            self._sink.commit(context, [(one, data[one.index]) for one in good], bad, part)
        done = {one.index: ProtectedImage(None, [], one.problem.text, "", b"") for one in bad}
        for one in good:
            faces = [dataclasses.asdict(face) for face in one.faces]
            seal = encode_sealed(sealed[one.key]) if one.key in sealed else b""
            done[one.index] = ProtectedImage(data[one.index], faces, "", context.shard if self._sink else "", seal)
        return [done[number] for number in range(len(samples))]

    def _sample(
        self, context: ShardContext, number: int, name: str, data: bytes | Problem, row: Mapping[str, Any]
    ) -> Sample | QuarantinedSample:
        if isinstance(data, Problem):
            return QuarantinedSample(context.shard, number, name, data)
        if len(data) > MAX_PICTURE_BYTES:
            problem = Problem(Code.TOO_LARGE, f"its picture has {len(data)} bytes; the limit is {MAX_PICTURE_BYTES}")
            return QuarantinedSample(context.shard, number, name, problem)
        wanted = pick(dict(row), self.config.wanted)
        facts = json.loads(json.dumps(wanted, default=_plain)) if wanted else {}
        return Sample(context.shard, number, name, (Picture(self._image, data),), facts)


class ProtectBatch:
    """A `Protector` for engines that hand over batches of columns: Ray Data's `map_batches`, Hugging Face's `map`.

    A batch is a pyarrow Table or a mapping of column name to a sequence of values; what comes back is of the same kind.
    """

    def __init__(self, **settings: Any) -> None:
        self._protector = Protector(**settings)

    def __call__(self, batch: Any) -> Any:
        if hasattr(batch, "to_pylist"):
            return self._table(batch)
        names = list(batch)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*(batch[name] for name in names), strict=True)]
        done = self._protector.rows(rows)
        columns = {name: [row[name] for row in done] for name in (*names, *ADDED)}
        return columns if all(isinstance(batch[name], list) for name in names) else _arrays(columns)

    def _table(self, table: Any) -> Any:
        import pyarrow as pa

        done = self._protector.rows(table.to_pylist())
        kinds = [pa.string(), pa.string(), pa.string(), pa.binary()]
        place = table.schema.get_field_index(self._protector._image)
        image = table.schema.field(place)
        table = table.set_column(place, image, pa.array([row[image.name] for row in done], image.type))
        for name, kind in zip(ADDED, kinds, strict=True):
            table = table.append_column(name, pa.array([row[name] for row in done], kind))
        return table


def protect_image(data: bytes, *, key: str = "image", **settings: Any) -> ProtectedImage:
    """Protect one picture. The models of the last few settings stay loaded.

    Args:
        settings: of `Protector`; plain values.
    """
    return _protector(json.dumps(settings, sort_keys=True)).image(data, key=key)


def key_file(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], bytes]:
    """Key files made from rows that carry their sealed records: (dataset, shard) -> bytes for `KeyStore.put`."""
    parts: dict[ShardContext, list[SealedPart]] = {}
    for row in rows:
        if row["diffpriv_sealed"]:
            part = decode_sealed(row["diffpriv_sealed"])
            parts.setdefault(part.context, []).append(part)
    return {(context.dataset, context.shard): build_key_file(context, many) for context, many in parts.items()}


class _Sink:
    """Key store and audit log of our own; a call's rows may be handed on when `commit` returns."""

    def __init__(self, config: JobConfig) -> None:
        self._config, self._run = config, f"rows-{uuid.uuid4().hex}"
        self._store = KeyStore(str(config.keys))
        self._segments = AuditSegments(f"{config.audit.rstrip('/')}/segments")
        self._begun = False

    def commit(
        self,
        context: ShardContext,
        rows: Sequence[tuple[ProtectedSample, bytes]],
        bad: Sequence[QuarantinedSample],
        part: SealedPart | None,
    ) -> None:
        now = int(time.time())
        if not self._begun:
            event = run_started(now, self._run, context.dataset, context.config_digest)
            self._segments.put(f"run/{self._run}/1-started", [event])
            self._begun = True
        order = [row.key for row, _ in rows]
        receipt = None
        if part is not None:
            receipt = self._store.put(context.dataset, context.shard, build_key_file(context, [part], order))
        digest = data_digest("folder", [(row.key, hashlib.sha256(data).hexdigest()) for row, data in rows])
        faces = [face.status for row, _ in rows for face in row.faces]
        counts: dict[str, Any] = {f"faces_{status}": faces.count(status) for status in ("protected", "filled", "left")}
        counts |= {"records_in": len(rows) + len(bad), "records_out": len(rows), **custody_facts(self._config)}
        events = [shard_committed(now, self._run, context, faces=len(faces), key_file=receipt, data_sha256=digest, **counts)]
        for one in bad:
            commitment, _ = commit_names(context.dataset, context.shard, one.key)
            events.append(sample_quarantined(now, self._run, context, commitment, one.problem.code))
        self._segments.put(segment_id(context.dataset, context.shard), events)


def _make(kind: type[Protector], arguments: dict[str, Any]) -> Protector:
    return kind(**arguments)


@lru_cache(maxsize=4)
def _protector(settings: str) -> Protector:
    return Protector(**json.loads(settings))


def _distinct(
    rows: Sequence[tuple[str, bytes | Problem, Mapping[str, Any]]],
) -> list[tuple[str, bytes | Problem, Mapping[str, Any]]]:
    """A name that occurs again in a call gets its place in it: records are found by name."""
    seen: set[str] = set()
    named = []
    for number, (name, data, row) in enumerate(rows):
        name = f"{name}#{number}" if name in seen else name  # noqa: PLW2901
        seen.add(name)
        named.append((name, data, row))
    return named


def _encoded(value: Any, paths: str | None) -> bytes | Problem:
    """A row's encoded picture, or why it has none that may be read.

    Raises:
        MisuseError: it is decoded already: its bytes are gone, and written anew the picture would be another one.
    """
    if isinstance(value, Mapping):
        path = value.get("path")
        value = value.get("bytes")
        if value is None and isinstance(path, str):
            return _file(path, paths)
    if value is None:
        return Problem(Code.NO_PICTURE, "it has no picture")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise MisuseError(
        f"a row's picture is a decoded {type(value).__name__}, and what is protected is an encoded one: "
        "bytes, or a mapping with `bytes` or a local `path`.",
        advice='Hugging Face: dataset.cast_column("image", datasets.Image(decode=False)). '
        "Ray Data: read_binary_files instead of read_images, read_webdataset(..., decoder=None).",
    )


def _file(path: str, paths: str | None) -> bytes | Problem:
    """A file's bytes if it lies in `paths`, links resolved, and is a file of its own; else why they are not read."""
    if paths is None:
        return Problem(Code.NOT_PLAIN, "it names a file, and no folder was given in which rows may name one: give `paths`")
    try:
        real = os.path.realpath(path)
        if "\0" in path or os.path.commonpath([real, paths]) != paths:
            return Problem(Code.NOT_PLAIN, "it names a file outside the folder given as `paths`")
        with Folder(paths).open(os.path.relpath(real, paths), follow=False) as handle:
            data = handle.read(MAX_PICTURE_BYTES + 1)
    except (OSError, ValueError, StorageError):
        return Problem(Code.NOT_PLAIN, "it names a file that cannot be read")
    return data


def _like(value: Any, data: bytes | None) -> Any:
    """The new picture as the old one came; a path beside it would still lead to the original. None for one in quarantine."""
    if data is None or not isinstance(value, Mapping):
        return data
    return {**value, "bytes": data, **({"path": None} if "path" in value else {})}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _arrays(columns: dict[str, list[Any]]) -> dict[str, Any]:
    import numpy as np

    arrays = {}
    for name, values in columns.items():
        array = np.empty(len(values), dtype=object)
        array[:] = values
        arrays[name] = array
    return arrays

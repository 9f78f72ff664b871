"""For other people's pipelines: faces of single pictures or of rows that somebody else reads and writes.

    protect_image(data, **settings)                      one picture
    Protector(**settings).rows([{...}, ...])             rows as mappings
    dataset.map_batches(ProtectBatch, fn_constructor_kwargs=settings, ...)      Ray Data (pyarrow or numpy batches)
    hugging_face.map(ProtectBatch(**settings), batched=True, ...)               Hugging Face datasets
    pipeline | ProtectRows(**settings)                   Beam (`pipelines.beam_transform`)

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
    diffpriv_sealed  bytes (layout at `pipelines.staging.encode_sealed`); b"" without faces, or with our sink
Everything else in the row is handed on as it came; the settings that read fields (boxes, consent, pseudonym) read them there.
"""

import dataclasses
import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from keys.audit.events import commit_names, run_started, sample_quarantined, shard_committed
from keys.audit.segments import AuditSegments
from keys.context import ShardContext
from keys.keyfile import build_key_file
from keys.recipients import Recipient, check_recipients
from keys.sealing import FaceSecret, SealedPart, seal_part
from keys.sources import KeySource, RandomKeySource
from keys.store import KeyStore
from pipelines.commit import segment_id
from pipelines.config import JobConfig
from pipelines.errors import MisuseError
from pipelines.facts import pick
from pipelines.finding import Finder
from pipelines.formats import MAX_PICTURE_BYTES, data_digest
from pipelines.job import with_root_id
from pipelines.pseudonyms import load_identities
from pipelines.samples import DetectedSample, Picture, ProtectedSample, QuarantinedSample, Sample
from pipelines.staging import decode_sealed, encode_sealed
from pipelines.steps import protect
from pipelines.workers import fix_threads

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
        image, key: names of the columns with the picture (bytes, or a mapping with `bytes`) and with the row's name, which
            need not be unique; rows have numbers where no `key` is given.
        key_source: for tests; random keys by default.
        settings: of `JobConfig`, `src` and `dst` left out. `dataset` is required.
    Raises:
        MisuseError: a setting is wrong, or one of keys and audit is given without the other.
    """

    def __init__(
        self, *, image: str = "image", key: str | None = None, key_source: KeySource | None = None, **settings: Any
    ) -> None:
        self._arguments = {"image": image, "key": key, **settings}
        if "dataset" not in settings:
            raise MisuseError("rows have no dataset's name of their own: give `dataset`.")
        if bool(settings.get("keys")) != bool(settings.get("audit")):
            raise MisuseError("our sink needs a key store and an audit log: give both `keys` and `audit`, or neither.")
        values = {**settings, "keys": settings.get("keys") or ROW, "audit": settings.get("audit") or ROW}
        self.config = with_root_id(JobConfig.from_mapping({"src": ROW, "dst": ROW, **values}))
        self._image, self._key = image, key
        self._keeps = self.config.transform.recovery != "none"
        self._recipients = [Recipient.load(path) for path in self.config.recipients] if self._keeps else []
        if self._keeps:
            check_recipients(self._recipients)
        self._sink = _Sink(self.config) if settings.get("keys") else None
        self._keys: KeySource = key_source or RandomKeySource()
        self._loaded: _Loaded | None = None

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
        done = self._protect([(name, _bytes_of(value), row) for name, value, row in zip(names, values, rows, strict=True)])
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

    def _protect(self, rows: Sequence[tuple[str, bytes | None, Mapping[str, Any]]]) -> list[ProtectedImage]:
        loaded = self._loaded = self._loaded or _Loaded(self.config)
        context = ShardContext(self.config.dataset, f"rows/{uuid.uuid4().hex}", self.config.digest())
        samples = [self._sample(context, number, *row) for number, row in enumerate(_distinct(rows))]
        looked = loaded.finder.detect([one for one in samples if isinstance(one, Sample)])
        found = [one for one in looked if isinstance(one, DetectedSample)]
        protected, secrets = protect(found, loaded.transform, self._keys, context, loaded.identities)
        bad = [one for one in (*samples, *looked, *protected) if isinstance(one, QuarantinedSample)]
        good = [one for one in protected if isinstance(one, ProtectedSample)]
        sealed = self._seal(context, secrets)
        data = {one.index: one.pictures[0].data for one in samples if isinstance(one, Sample)}
        data |= {one.index: picture.data for one in good for picture in one.changed}
        if self._sink is not None:
            part = sealed.get("") if sealed else None
            self._sink.commit(context, [(one, data[one.index]) for one in good], bad, part)
        done = {one.index: ProtectedImage(None, [], one.reason, "", b"") for one in bad}
        for one in good:
            faces = [{**dataclasses.asdict(face), "recoverable": face.recoverable and self._keeps} for face in one.faces]
            own = sealed.get(one.key)
            row_seal = encode_sealed(own) if own is not None and self._sink is None else b""
            done[one.index] = ProtectedImage(data[one.index], faces, "", context.shard if self._sink else "", row_seal)
        return [done[number] for number in range(len(samples))]

    def _seal(self, context: ShardContext, secrets: Sequence[FaceSecret]) -> dict[str, SealedPart]:
        """One part for all rows (under "") for our sink, one part per row for somebody else's."""
        if not self._recipients or not secrets:
            return {}
        if self._sink is not None:
            return {"": seal_part(context, self._recipients, secrets)}
        names = dict.fromkeys(secret.sample for secret in secrets)
        return {
            name: seal_part(context, self._recipients, [secret for secret in secrets if secret.sample == name])
            for name in names
        }

    def _sample(
        self, context: ShardContext, number: int, name: str, data: bytes | None, row: Mapping[str, Any]
    ) -> Sample | QuarantinedSample:
        if data is None:
            return QuarantinedSample(context.shard, number, name, "it has no picture")
        if len(data) > MAX_PICTURE_BYTES:
            return QuarantinedSample(context.shard, number, name, f"its picture has {len(data)} bytes")
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


class _Loaded:
    """What takes seconds to load."""

    def __init__(self, config: JobConfig) -> None:
        from diffpriv.transforms import load_transform

        fix_threads()
        self.finder = Finder(config)
        self.transform = load_transform(config.transform)
        self.identities = load_identities(config)
        fix_threads()


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
        counts = {f"faces_{status}": faces.count(status) for status in ("protected", "filled", "left")}
        counts |= {"records_in": len(rows) + len(bad), "records_out": len(rows)}
        events = [shard_committed(now, self._run, context, faces=len(faces), key_file=receipt, data_sha256=digest, **counts)]
        for one in bad:
            commitment, _ = commit_names(context.dataset, context.shard, one.key)
            events.append(sample_quarantined(now, self._run, context, commitment, one.reason))
        self._segments.put(segment_id(context.dataset, context.shard), events)


def _make(kind: type[Protector], arguments: dict[str, Any]) -> Protector:
    return kind(**arguments)


@lru_cache(maxsize=4)
def _protector(settings: str) -> Protector:
    return Protector(**json.loads(settings))


def _distinct(rows: Sequence[tuple[str, bytes | None, Mapping[str, Any]]]) -> list[tuple[str, bytes | None, Mapping[str, Any]]]:
    """A name that occurs again in a call gets its place in it: records are found by name."""
    seen: set[str] = set()
    named = []
    for number, (name, data, row) in enumerate(rows):
        name = f"{name}#{number}" if name in seen else name  # noqa: PLW2901
        seen.add(name)
        named.append((name, data, row))
    return named


def _bytes_of(value: Any) -> bytes | None:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None


def _like(value: Any, data: bytes | None) -> Any:
    """The new picture as the old one came; a path beside it would still lead to the original."""
    return {**value, "bytes": data, **({"path": None} if "path" in value else {})} if isinstance(value, Mapping) else data


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

"""The layout of a key file: all sealed records of one shard in one Parquet file, as bytes in and bytes out.

Columns, one row per face, ordered by (sample's place in the shard, face index):
    sample       string           the sample's __key__
    face_index   int32            0, 1, ...
    part         int32            index into the header's "parts": which shard key the record is sealed under
    record       binary, nullable the sealed record (keys/sealing.py); null once shredded
    shredded_at  int64, nullable  seconds since 1970 UTC at which the record was destroyed; null while it lives
File metadata key "diffpriv.key_file": JSON, sorted keys, no spaces:
    {"format": "diffpriv key file", "version": 2, "dataset", "shard", "config_digest", "faces": number of rows,
     "recipients": [[fingerprint, kind], ...], "policy": digest of the custody policy,
     "locks": [keys.quorum.ShardLock, ...]: one, or more where the reading of a shard was repeated,
     "parts": [{"commitment": base64 of 32 bytes, "wraps": [base64 per recipient], "lock": index, "quorum_wrap": base64}, ...]}
Version 1, of shards sealed without a policy, has no "policy", "locks", "lock" and "quorum_wrap".
A part all of whose rows are shredded has "wraps": [] and "quorum_wrap": "", and a lock goes with its last part. Anyone can
rewrite the unsealed columns, so a reader trusts none of them: the records and wraps are bound to dataset, shard, configuration,
policy, sample and face index, and the SHA-256 of the whole file is in the audit log.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import KeyFileError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.quorum import ShardLock

if TYPE_CHECKING:
    import pyarrow

_METADATA_KEY = b"diffpriv.key_file"
_FORMAT = "diffpriv key file"
COLUMNS = ("sample", "face_index", "part", "record", "shredded_at")


@dataclass(frozen=True)
class Part:
    """One shard key of the file: its commitment, and one wrap per recipient (none once all its rows are shredded).

    Attributes:
        lock: which of the file's locks the quorum's half is wrapped to; -1 in files of version 1.
    """

    commitment: bytes
    wraps: tuple[bytes, ...]
    lock: int = -1
    quorum_wrap: bytes = b""

    def destroyed(self) -> "Part":
        return Part(self.commitment, (), self.lock, b"")


@dataclass(frozen=True)
class Layout:
    """What a key file holds, before anything in it is authenticated."""

    context: ShardContext
    recipients: list[tuple[str, str]]  # (fingerprint, kind)
    parts: list[Part]
    table: "pyarrow.Table"
    locks: list[ShardLock]

    def without_idle_locks(self) -> "Layout":
        """Locks that no living part needs go: the quorum's secret dies with the last face under it."""
        used = sorted({part.lock for part in self.parts if part.wraps and part.lock >= 0})
        if len(used) == len(self.locks) or not used:
            return self  # the last lock stays, so that the file still says its policy
        place = {old: new for new, old in enumerate(used)}
        parts = [Part(p.commitment, p.wraps, place.get(p.lock, 0), p.quorum_wrap) for p in self.parts]
        return Layout(self.context, self.recipients, parts, self.table, [self.locks[old] for old in used])


def parse_layout(data: bytes, where: str) -> Layout:
    """Raises: KeyFileError saying what is wrong with `where`."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        metadata = file.metadata.metadata or {}
        if _METADATA_KEY not in metadata:
            raise ValueError("it is a Parquet file, but not one of keys")
        header = parse_json(metadata[_METADATA_KEY])
        table = file.read()
        if header["format"] != _FORMAT or header["version"] not in (1, 2):
            raise ValueError("not a key file of version 1 or 2")
        if not all(isinstance(header[name], str) for name in ("dataset", "shard", "config_digest")):
            raise ValueError("its header names no dataset, shard and configuration")
        context = ShardContext(header["dataset"], header["shard"], header["config_digest"])
        recipients = [(str(fingerprint), str(kind)) for fingerprint, kind in header["recipients"]]
        locks = _parse_locks(header)
        parts = [_parse_part(part, len(recipients), len(locks)) for part in header["parts"]]
        if table.schema.remove_metadata() != schema():
            raise ValueError("its columns are not those of a key file")
        if header["faces"] != table.num_rows:
            raise ValueError(f"it has {table.num_rows} rows where its header says {header['faces']}")
        _check_rows(table, len(parts))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, pyarrow.ArrowException) as error:
        raise KeyFileError(f"{where} is damaged: {_first_line(error)}.") from error
    return Layout(context, recipients, parts, table, locks)


def write_layout(layout: Layout) -> bytes:
    """The key file's bytes."""
    import pyarrow
    import pyarrow.parquet

    context, table, locks = layout.context, layout.table, layout.locks
    header: dict[str, Any] = {
        "format": _FORMAT,
        "version": 2 if locks else 1,
        "dataset": context.dataset,
        "shard": context.shard,
        "config_digest": context.config_digest,
        "faces": table.num_rows,
        "recipients": [list(one) for one in layout.recipients],
        "parts": [_part_json(part, bool(locks)) for part in layout.parts],
    }
    if locks:
        header |= {"policy": locks[0].policy, "locks": [lock.to_json() for lock in locks]}
    sink = pyarrow.BufferOutputStream()
    with pyarrow.parquet.ParquetWriter(
        sink,
        schema(),
        version="2.6",
        store_schema=False,
        write_statistics=False,  # they would repeat sample names for nothing
        use_dictionary=["part", "face_index"],
        column_encoding={"sample": "DELTA_BYTE_ARRAY"},
        # Sealed bytes don't compress; names and numbers do.
        compression={"sample": "zstd", "face_index": "zstd", "part": "zstd", "record": "none", "shredded_at": "zstd"},
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_METADATA_KEY: canonical_json(header)})
    return sink.getvalue().to_pybytes()


def make_table(*columns: Sequence[Any]) -> "pyarrow.Table":
    """The table of a key file from its columns, in the schema's order."""
    import pyarrow

    return pyarrow.Table.from_arrays(
        [pyarrow.array(column, field.type) for column, field in zip(columns, schema(), strict=True)], schema=schema()
    )


def schema() -> "pyarrow.Schema":
    """The columns of a key file."""
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field("sample", pyarrow.string(), nullable=False),
            pyarrow.field("face_index", pyarrow.int32(), nullable=False),
            pyarrow.field("part", pyarrow.int32(), nullable=False),
            pyarrow.field("record", pyarrow.binary()),
            pyarrow.field("shredded_at", pyarrow.int64()),
        ]
    )


def _part_json(part: Part, locked: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"commitment": _b64(part.commitment), "wraps": [_b64(wrap) for wrap in part.wraps]}
    return body | {"lock": part.lock, "quorum_wrap": _b64(part.quorum_wrap)} if locked else body


def _parse_locks(header: dict[str, Any]) -> list[ShardLock]:
    if header["version"] == 1:
        return []
    locks = [ShardLock.from_json(one) for one in header["locks"]]
    if not locks or any(lock.policy != header["policy"] for lock in locks):
        raise ValueError("its shard locks are missing or of another custody policy than it says")
    return locks


def _parse_part(part: dict[str, Any], recipients: int, locks: int) -> Part:
    commitment = base64.b64decode(part["commitment"], validate=True)
    wraps = tuple(base64.b64decode(wrap, validate=True) for wrap in part["wraps"])
    if len(commitment) != 32 or len(wraps) not in (0, recipients):
        raise ValueError("its list of wrapped shard keys is incomplete")
    if not locks:
        return Part(commitment, wraps)
    lock, quorum_wrap = part["lock"], base64.b64decode(part["quorum_wrap"], validate=True)
    if type(lock) is not int or not 0 <= lock < locks or bool(quorum_wrap) != bool(wraps):
        raise ValueError("a part names a lock that the header lacks")
    return Part(commitment, wraps, lock, quorum_wrap)


def _check_rows(table: "pyarrow.Table", parts: int) -> None:
    from pyarrow import compute

    if table.num_rows == 0:
        return
    part = compute.min_max(table["part"]).as_py()
    if part["min"] < 0 or part["max"] >= parts:
        raise ValueError("a row names a shard key that the header lacks")
    if compute.min(table["face_index"]).as_py() < 0:
        raise ValueError("a row has a negative face index")
    dead, dated = compute.is_null(table["record"]), compute.is_valid(table["shredded_at"])
    if not compute.all(compute.equal(dead, dated)).as_py():
        raise ValueError("a row is neither sealed nor shredded")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

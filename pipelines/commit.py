"""The ordering rule by which a shard becomes part of the output, and nothing else.

A shard is prepared when all that will be written lies complete and durable in staging, described by `prepared.json`. From then
on the outcome is certain; a commit only moves bytes, and every step can be repeated:

    1. retract   what an earlier commit published of this shard is removed, its commit record last
    2. keys      the key file is durable in the key store
    3. audit     the audit segment is durable
    4. data      the files are published, each in one step
    5. record    commits/<shard>.json
    6. staging   is removed, prepared.json first

At every moment, each published face has its key record and its audit entry: 2 and 3 come before 4, and 1 takes the old faces
away before 2 replaces their keys. A crash before prepared.json leaves the old state, and the shard is redone with new keys; a
crash after it is rolled forward by the next run from prepared.json, with the same keys and the same bytes. After step 5 only
step 6 is repeated: a key file may have been shredded or rotated since, and putting it again would undo that.
A commit record is trusted only if its files are there.
"""

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from keys.audit.events import AuditEvent
from keys.errors import StorageError
from keys.store import Receipt, encode_name
from pipelines.errors import ShardError
from pipelines.face_table import face_table_name
from pipelines.formats import OutputFile
from pipelines.sources import STATE_FOLDER
from pipelines.storage import Folder

PREPARED = "prepared.json"
RECORD_VERSION = 1


class KeyFiles(Protocol):
    """What a commit needs of `keys.store.KeyStore`."""

    def put(self, dataset: str, shard: str, data: bytes) -> Receipt: ...


class Segments(Protocol):
    """What a commit needs of `keys.audit.segments.AuditSegments`."""

    def put(self, segment_id: str, events: list[AuditEvent]) -> str: ...


@dataclass(frozen=True)
class Prepared:
    """A complete shard in staging.

    Attributes:
        folder: its folder in staging, which goes when the commit is done.
        files: what will be published.
        key_file: the shard's key file in staging; None with recovery "none", which keeps no keys.
        events: for the shard's audit segment, as (kind, at, facts).
        quarantine: one mapping per quarantined sample, for quarantine/<shard>.jsonl.
        record: facts for the commit record.
        attempt: a random name that tells this attempt from others at the same shard.
        table: the faces table in staging, for the job's state; None where none is kept.
    """

    dataset: str
    shard: str
    folder: str
    files: tuple[OutputFile, ...]
    key_file: OutputFile | None
    events: tuple[tuple[str, int, dict[str, Any]], ...]
    quarantine: tuple[dict[str, Any], ...]
    attempt: str
    record: dict[str, Any] = field(default_factory=dict)
    table: OutputFile | None = None

    def encode(self) -> bytes:
        return json.dumps(
            {
                **vars(self),
                "files": [vars(one) for one in self.files],
                "key_file": _plain(self.key_file),
                "table": _plain(self.table),
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Prepared":
        values = json.loads(data)
        return cls(
            **{
                **values,
                "files": tuple(OutputFile(**one) for one in values["files"]),
                "key_file": OutputFile(**values["key_file"]) if values["key_file"] else None,
                "table": OutputFile(**values["table"]) if values.get("table") else None,
                "events": tuple((kind, at, facts) for kind, at, facts in values["events"]),
                "quarantine": tuple(values["quarantine"]),
            }
        )


def _plain(file: OutputFile | None) -> dict[str, Any] | None:
    return vars(file) if file else None


def record_name(shard: str) -> str:
    return f"{STATE_FOLDER}/commits/{encode_name(shard)}.json"


def quarantine_name(shard: str) -> str:
    return f"{STATE_FOLDER}/quarantine/{encode_name(shard)}.jsonl"


def segment_id(dataset: str, shard: str) -> str:
    return f"shard/{dataset}/{shard}"


def read_record(data: Folder, shard: str) -> dict[str, Any] | None:
    """The shard's commit record, or None if it is not committed. A record whose files are gone or cut counts as none."""
    written = data.small.read_if_there(record_name(shard))
    if written is None:
        return None
    try:
        record: dict[str, Any] = json.loads(written)
        there = all(data.exists(name) and data.facts(name).size == size for name, _, size in record["files"])
    except (ValueError, KeyError, TypeError):
        return None
    return record if there and record.get("version") == RECORD_VERSION else None


class Commit:
    """Carries prepared shards over the line, in the order at the top of this file."""

    def __init__(self, data: Folder, keys: KeyFiles | None, segments: Segments) -> None:
        self._data, self._keys, self._segments = data, keys, segments

    def finish(self, prepared: Prepared) -> dict[str, Any]:
        """Steps 1 to 6; returns the commit record. May be called again after any crash.

        Raises:
            ShardError: staging is not what prepared.json says; nothing was changed.
            StorageError: a store refused; call again later.
        """
        done = read_record(self._data, prepared.shard)
        if done is not None and done.get("attempt") == prepared.attempt:
            self._clean(prepared)
            return done
        self._check(prepared)
        self._retract(prepared)
        key_receipt = None
        if prepared.key_file is not None and self._keys is not None:
            key_receipt = self._keys.put(prepared.dataset, prepared.shard, self._data.small.read(prepared.key_file.staged))
        events = [AuditEvent(kind, at, facts) for kind, at, facts in prepared.events]
        segment = segment_id(prepared.dataset, prepared.shard)
        segment_sha256 = self._segments.put(segment, events)
        for file in prepared.files:
            if self._data.exists(file.staged):
                self._data.move(file.staged, file.name)
        record = {
            "version": RECORD_VERSION,
            "dataset": prepared.dataset,
            "shard": prepared.shard,
            "attempt": prepared.attempt,
            **prepared.record,
            "files": [[file.name, file.sha256, file.size] for file in prepared.files],
            "key_file": {"path": key_receipt.path, "sha256": key_receipt.sha256, "size": key_receipt.size}
            if key_receipt
            else None,
            "segment": {"id": segment, "sha256": segment_sha256},
        }
        self._write_quarantine(prepared)
        self._publish_table(prepared)
        self._data.small.write(record_name(prepared.shard), json.dumps(record, indent=1).encode())
        self._clean(prepared)
        return record

    def _clean(self, prepared: Prepared) -> None:
        self._data.remove(f"{prepared.folder}/{PREPARED}")
        self._data.remove_tree(prepared.folder)

    def _check(self, prepared: Prepared) -> None:
        """Every file is in staging as described, or (after a crash in step 4) already in its place."""
        expected = [(file, file.name) for file in prepared.files]
        if prepared.key_file is not None:
            if self._keys is None:
                raise ShardError(f"{prepared.shard} has a key file, but the job has no key store.")
            expected.append((prepared.key_file, prepared.key_file.staged))
        for file, final in expected:
            place = file.staged if self._data.exists(file.staged) else final
            try:
                same = self._data.facts(place).size == file.size and self._data.sha256(place) == file.sha256
            except StorageError:
                same = False
            if not same:
                raise ShardError(f"{self._data.describe(place)} is not what was prepared.")

    def _retract(self, prepared: Prepared) -> None:
        """Take away what this commit replaces. Files of this very commit that are already in place are known by their absence
        from staging, and stay."""
        name = record_name(prepared.shard)
        written = self._data.small.read_if_there(name)
        moved = {file.name for file in prepared.files if not self._data.exists(file.staged)}
        doomed = {file.name for file in prepared.files} - moved
        if written is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # of a damaged record the new names are all we know
                doomed |= {file for file, _, _ in json.loads(written)["files"]} - moved
        for file in sorted(doomed):
            self._data.remove(file)
        if written is not None:
            self._data.small.delete(name)

    def _publish_table(self, prepared: Prepared) -> None:
        """The faces table, or none: one of an earlier commit would tell of other faces."""
        if prepared.table is None:
            self._data.small.delete(face_table_name(prepared.shard))
        elif self._data.exists(prepared.table.staged):
            self._data.move(prepared.table.staged, prepared.table.name)

    def _write_quarantine(self, prepared: Prepared) -> None:
        name = quarantine_name(prepared.shard)
        if prepared.quarantine:
            lines = [json.dumps(one, sort_keys=True) + "\n" for one in prepared.quarantine]
            self._data.small.write(name, "".join(lines).encode())
        else:
            self._data.small.delete(name)

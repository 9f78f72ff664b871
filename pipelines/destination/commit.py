"""The ordering rule by which a shard becomes part of the output, and nothing else.

A shard is prepared when all that will be written lies complete and durable in staging, described by a `Prepared` document. That
lies with the audit log (PREPARED below its URL), where those who can write DST can't: it names every staged file by digest, so
DST's writers can spoil a prepared shard, but not have another published or another key file put. From then on the outcome is
certain; a commit only moves bytes, and every step can be repeated:

    1. retract   what an earlier commit published of this shard is removed, its commit record last
    2. keys      the key file is durable in the key store
    3. audit     the audit segment is durable
    4. data      the files are published, each in one step
    5. record    commits/<shard>.json
    6. staging   is removed, the document first

At every moment, each published face has its key record and its audit entry: 2 and 3 come before 4, and 1 takes the old faces
away before 2 replaces their keys. A crash before the document leaves the old state, and the shard is redone with new keys; a
crash after it is rolled forward by the next run, with the same keys and the same bytes, but where an earlier commit of the
shard is still whole: that is never rolled over, and the shard is redone. After step 5 only step 6 is repeated: a key file may
have been shredded or rotated since, and putting it again would undo that.
A commit record is trusted only if its files are there.
"""

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Protocol

from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.errors import StorageError
from diffpriv.keys.files import Location, open_location
from diffpriv.keys.store import Receipt, encode_name
from diffpriv.pipelines import layout
from diffpriv.pipelines.destination.record import CommitRecord, decode_record
from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.base import OutputFile
from diffpriv.pipelines.storage import Folder

PREPARED = "prepared"  # folder below the audit URL


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
        record: the commit record as it will be, but for the key file's receipt and the audit segment.
        folder: its folder in staging, which goes when the commit is done.
        files: what will be published.
        key_file: the shard's key file in staging; None with recovery "none", which keeps no keys.
        events: for the shard's audit segment, as (kind, at, facts).
        quarantine: one mapping per quarantined sample, for quarantine/<shard>.jsonl.
        table: the faces table in staging, for the job's state; None where none is kept.
    """

    record: CommitRecord
    folder: str
    files: tuple[OutputFile, ...]
    key_file: OutputFile | None
    events: tuple[tuple[str, int, dict[str, Any]], ...]
    quarantine: tuple[dict[str, Any], ...] = ()
    table: OutputFile | None = None

    @property
    def shard(self) -> str:
        return self.record.shard

    @property
    def name(self) -> str:
        """The document's name below PREPARED."""
        return prepared_name(self.record.dataset, self.folder)

    def encode(self) -> bytes:
        return json.dumps(
            {
                **vars(self),
                "record": self.record.to_json(),
                "files": [vars(one) for one in self.files],
                "key_file": vars(self.key_file) if self.key_file else None,
                "table": vars(self.table) if self.table else None,
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Prepared":
        """Raises: ShardError if this is no prepared shard: another version's, or written only in part."""
        try:
            values = json.loads(data)
            return cls(
                record=CommitRecord.from_json(values["record"]),
                folder=values["folder"],
                files=tuple(OutputFile(**one) for one in values["files"]),
                key_file=OutputFile(**values["key_file"]) if values["key_file"] else None,
                events=tuple((kind, at, facts) for kind, at, facts in values["events"]),
                quarantine=tuple(values["quarantine"]),
                table=OutputFile(**values["table"]) if values["table"] else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"this is no prepared shard: {type(error).__name__}.") from None


def prepared_name(dataset: str, folder: str) -> str:
    """`folder`: the shard's in staging, whose last parts are the run and the shard."""
    run, shard = folder.split("/")[-2:]
    return f"{encode_name(dataset)}/{run}/{shard}.json"


def prepared_place(audit: str) -> Location:
    """Where the notes of prepared shards lie, beside the audit log."""
    return open_location(f"{audit.rstrip('/')}/{PREPARED}")


def segment_id(dataset: str, shard: str) -> str:
    """The name of a shard's audit segment."""
    return f"shard/{dataset}/{shard}"


class Commit:
    """Carries prepared shards over the line, in the order at the top of this file."""

    def __init__(self, data: Folder, keys: KeyFiles | None, segments: Segments, prepared: Location) -> None:
        self._data, self._keys, self._segments, self._prepared = data, keys, segments, prepared

    def finish(self, prepared: Prepared, *, after_a_crash: bool = False) -> CommitRecord:
        """Steps 1 to 6; returns the commit record. May be called again after any crash.

        Args:
            after_a_crash: what lies in staging was left by a run that died, so its contents are read and compared, too. A run
                that goes on has just written them, durably, and hashed them on their way: there the sizes must be right.
        Raises:
            ShardError: staging is not what was prepared, or after a crash, the shard is committed otherwise and is not to be
                rolled over; nothing was changed.
            StorageError: a store refused; call again later.
        """
        written = self._data.small.read_if_there(layout.commit_record(prepared.shard))
        done = decode_record(self._data, written)
        if done is not None and done.attempt == prepared.record.attempt:
            self._clean(prepared)
            return done
        if done is not None and after_a_crash:
            raise ShardError(f"{prepared.shard} is committed; a dead run's work does not replace it.")
        waiting, key_file = self._check(prepared, contents=after_a_crash)
        self._retract(prepared, written, waiting)
        dataset, shard = prepared.record.dataset, prepared.shard
        receipt = self._keys.put(dataset, shard, key_file) if key_file is not None and self._keys is not None else None
        segment = segment_id(dataset, shard)
        segment_sha256 = self._segments.put(segment, [AuditEvent(kind, at, facts) for kind, at, facts in prepared.events])
        for file in waiting:
            self._data.move(file.staged, file.name)
        record = replace(prepared.record, key_file=receipt, segment_id=segment, segment_sha256=segment_sha256)
        self._write_quarantine(prepared)
        self._publish_table(prepared)
        self._data.small.write(layout.commit_record(shard), record.encode())
        self._clean(prepared)
        return record

    def _clean(self, prepared: Prepared) -> None:
        self._prepared.delete(prepared.name)
        self._data.remove_tree(prepared.folder)

    def _check(self, prepared: Prepared, *, contents: bool) -> tuple[list[OutputFile], bytes | None]:
        """Every file is in staging as described, or (after a crash in step 4) already in its place.

        Returns the files that wait in staging, and the key file.
        """
        waiting = []
        for file in prepared.files:
            size = self._size(file.staged)
            if size is not None:
                waiting.append(file)
            place, size = (file.staged, size) if size is not None else (file.name, self._size(file.name))
            if size != file.size or (contents and self._sha256(place) != file.sha256):
                raise ShardError(f"{self._data.describe(place)} is not what was prepared.")
        return waiting, self._key_file(prepared)

    def _size(self, name: str) -> int | None:
        """None if the file is not there or can't be looked at."""
        try:
            return self._data.facts(name).size
        except StorageError:
            return None

    def _sha256(self, name: str) -> str:
        """Empty if it can't be read."""
        try:
            return self._data.sha256(name)
        except StorageError:
            return ""

    def _key_file(self, prepared: Prepared) -> bytes | None:
        file_of_keys = prepared.key_file
        if file_of_keys is None:
            return None
        if self._keys is None:
            raise ShardError(f"{prepared.shard} has a key file, but the job has no key store.")
        try:
            data = self._data.small.read(file_of_keys.staged)
        except StorageError:
            data = b""
        if hashlib.sha256(data).hexdigest() != file_of_keys.sha256:
            raise ShardError(f"{self._data.describe(file_of_keys.staged)} is not what was prepared.")
        return data

    def _retract(self, prepared: Prepared, written: bytes | None, waiting: list[OutputFile]) -> None:
        """Take away what this commit replaces. Files of this very commit that are already in place are known by their absence
        from staging, and stay.

        Args:
            written: the commit record that is there. waiting: the files that wait in staging.
        """
        replaced = {file.name for file in waiting}
        moved = {file.name for file in prepared.files} - replaced
        if written is not None:
            with contextlib.suppress(ShardError):  # of a damaged record the new names are all we know
                replaced |= {file.name for file in CommitRecord.decode(written).files} - moved
        for file in sorted(replaced):
            self._data.remove(file)
        if written is not None:
            self._data.small.delete(layout.commit_record(prepared.shard))

    def _publish_table(self, prepared: Prepared) -> None:
        """The faces table, or none: one of an earlier commit would tell of other faces."""
        if prepared.table is None:
            self._data.small.delete(layout.face_table(prepared.shard))
        elif self._data.exists(prepared.table.staged):
            self._data.move(prepared.table.staged, prepared.table.name)

    def _write_quarantine(self, prepared: Prepared) -> None:
        name = layout.quarantine(prepared.shard)
        if prepared.quarantine:
            lines = [json.dumps(one, sort_keys=True) + "\n" for one in prepared.quarantine]
            self._data.small.write(name, "".join(lines).encode())
        else:
            self._data.small.delete(name)

"""The key file of one shard: built from sealed parts, and opened face by face. Its layout: keys/keyfile_layout.py."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import KeyFileError, MisuseError, RecordError, ShreddedError, UnknownFaceError, WrongRecipientError
from diffpriv.keys.keyfile_layout import COLUMNS, Layout, Part, make_table, parse_layout, write_layout
from diffpriv.keys.quorum import OpenLocks, ShardLock, one_lock, open_lock
from diffpriv.keys.recipients import Recipient, Unwrapper
from diffpriv.keys.sealing import (
    OpenedFace,
    SealedPart,
    commitment_fits,
    join_halves,
    make_shard_key,
    open_record,
    reseal_record,
    wrap_context,
)
from diffpriv.keys.secrets import ShardKey

if TYPE_CHECKING:
    import pyarrow

Face = tuple[str, int]  # (sample, face_index)


def build_key_file(context: ShardContext, parts: Sequence[SealedPart], sample_order: Iterable[str] | None = None) -> bytes:
    """The bytes of a shard's key file.

    Args:
        parts: of this context, all sealed to the same recipients.
        sample_order: the samples' order in the shard; by default the order in which the parts name them.
    Raises:
        KeyFileError: a part of another shard, other recipients, or a face that occurs twice.
    """
    if any(part.context != context for part in parts):
        raise KeyFileError(f"a part sealed for another shard was handed to the key file of {context.shard}.")
    if len({part.recipients for part in parts}) > 1:
        raise KeyFileError(f"the parts of {context.shard} were sealed to different recipients.")
    place: dict[str, int] = {}
    for name in sample_order if sample_order is not None else (name for part in parts for name in part.samples):
        place.setdefault(name, len(place))
    rows = [
        (sample, index, number, record)
        for number, part in enumerate(parts)
        for sample, index, record in zip(part.samples, part.face_indices, part.records, strict=True)
    ]
    try:
        rows.sort(key=lambda row: (place[row[0]], row[1]))
    except KeyError as error:
        raise KeyFileError(f"{context.shard} has a sealed face of sample {error.args[0]}, which is not in the shard.") from None
    for one, other in pairwise(rows):
        if one[:2] == other[:2]:
            raise KeyFileError(f"face {one[1]} of sample {one[0]} of {context.shard} was sealed twice.")
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], [], []]
    locks = one_lock([part.lock for part in parts if part.lock is not None], context.shard)
    if locks and any(part.lock is None for part in parts):
        raise KeyFileError(f"some parts of {context.shard} were locked under a custody policy and some were not.")
    place_of = {lock.id: number for number, lock in enumerate(locks)}
    header_parts = [
        Part(part.commitment, part.wraps, place_of[part.lock.id] if part.lock else -1, part.quorum_wrap) for part in parts
    ]
    recipients = list(parts[0].recipients) if parts else []
    return write_layout(Layout(context, recipients, header_parts, make_table(*columns, [None] * len(rows)), locks))


class KeyFile:
    """A parsed key file. Parsing checks the layout only; `open_face` and the audit log check everything else."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.context, self.recipients, self.parts, self.locks = layout.context, layout.recipients, layout.parts, layout.locks
        self._table: pyarrow.Table = layout.table

    @classmethod
    def parse(cls, data: bytes, *, dataset: str | None = None, shard: str | None = None) -> "KeyFile":
        """Read a key file's bytes; `dataset` and `shard` are what the caller believes it to be.

        Raises: KeyFileError naming the shard and what is wrong.
        """
        where = f"the key file of {shard}" if shard else "the key file"
        layout = parse_layout(data, where)
        context = layout.context
        if (dataset is not None and context.dataset != dataset) or (shard is not None and context.shard != shard):
            raise KeyFileError(
                f"{where} of dataset {dataset} is really that of {context.shard} of dataset {context.dataset}: "
                "files were swapped or renamed."
            )
        return cls(layout)

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def sealed_to(self) -> list[str]:
        """Fingerprints of the recipients."""
        return [fingerprint for fingerprint, _ in self.recipients]

    @property
    def policy(self) -> str:
        """Digest of the custody policy that the shard is locked under; "" where the recipient's key alone opens it."""
        return self.locks[0].policy if self.locks else ""

    def faces(self) -> list[Face]:
        """(sample, face index) of every row, shredded ones too, in the file's order."""
        return list(zip(self._table["sample"].to_pylist(), self._table["face_index"].to_pylist(), strict=True))

    def shredded(self) -> dict[Face, int]:
        """When each shredded face was shredded."""
        dates = self._table["shredded_at"].to_pylist()
        return {face: at for face, at in zip(self.faces(), dates, strict=True) if at is not None}

    def open_face(self, sample: str, face_index: int, recipient_key: Unwrapper, opened: OpenLocks | None = None) -> OpenedFace:
        """Open one face's record.

        Args:
            opened: the locks that a quorum opened; needed where the shard is locked under a policy.
        Raises:
            UnknownFaceError, ShreddedError, WrongRecipientError, QuorumError, RecordError: each names the face or the shard.
        """
        row = self.check_openable(sample, face_index, recipient_key.fingerprint)
        shard_key = self.shard_key(row["part"], recipient_key, opened)
        return open_record(shard_key, self.context.face(sample, face_index), row["record"])

    def record_digest(self, sample: str, face_index: int) -> str:
        """SHA-256 of the sealed record, which a request names: after a redo it is another. Raises as `check_openable`."""
        row = self._living(sample, face_index)
        return hashlib.sha256(row["record"]).hexdigest()

    def lock_of(self, sample: str, face_index: int) -> ShardLock | None:
        """The lock that opening the face takes; None in files without a policy. Raises as `check_openable`."""
        part = self.parts[self._living(sample, face_index)["part"]]
        return self.locks[part.lock] if part.lock >= 0 else None

    def check_openable(self, sample: str, face_index: int, fingerprint: str) -> dict[str, Any]:
        """The face's row. Raises as `open_face` does for what can be known without unwrapping anything."""
        row = self._living(sample, face_index)
        self.check_recipient(fingerprint)
        return row

    def _living(self, sample: str, face_index: int) -> dict[str, Any]:
        row = self._row(sample, face_index)
        if row["record"] is None:
            day = datetime.fromtimestamp(row["shredded_at"], timezone.utc).date().isoformat()
            where = f"face {face_index} of sample {sample} in {self.context.shard}"
            raise ShreddedError(f"{where} was shredded on {day}; it can't be recovered.")
        return row

    def check_recipient(self, fingerprint: str) -> int:
        """The recipient's place. Raises: WrongRecipientError. Unwraps nothing, so it can be asked before a release."""
        if fingerprint not in self.sealed_to:
            sealed = ", ".join(f"{one[:8]}…" for one in self.sealed_to) or "nobody"
            raise WrongRecipientError(
                f"{self.context.shard} was sealed to recipients {sealed}; this key is {fingerprint[:8]}….",
                advice='Ask a holder of one of those, or have them run "diffpriv keys rotate" to add this one.',
            )
        return self.sealed_to.index(fingerprint)

    def shard_key(self, part: int, recipient_key: Unwrapper, opened: OpenLocks | None = None) -> ShardKey:
        """One part's shard key. Raises: WrongRecipientError, QuorumError, RecordError naming shard and part."""
        place = self.check_recipient(recipient_key.fingerprint)
        one = self.parts[part]
        where = f"the shard key of part {part} in {self.context.shard} of dataset {self.context.dataset}"
        if not one.wraps:
            raise RecordError(f"{where} was destroyed, but a record under it was not; the key file was altered.")
        lock = self.locks[one.lock] if one.lock >= 0 else None
        lock_key = (opened.key(lock) if opened is not None else None) if lock is not None else None
        if lock is not None and lock_key is None:
            open_lock(lock, self.context, {})  # says what it takes
        info = wrap_context(self.context, one.commitment, lock)
        try:
            key = recipient_key.unwrap(one.wraps[place], info)
            if lock_key is not None:
                key = join_halves(self.context, key, lock_key.unwrap(one.quorum_wrap, info))
        except RecordError:
            raise RecordError(f"{where} can't be unwrapped: altered, or of another dataset, shard or policy.") from None
        if not commitment_fits(key, one.commitment):
            raise RecordError(f"{where} does not fit its commitment: it was swapped for another key.")
        return key

    def check_all(self, recipient_key: Unwrapper, locks: OpenLocks | None = None) -> int:
        """Open every living record and forget it; the number that opened. Raises at the first that does not, as `open_face`."""
        opened: dict[int, ShardKey] = {}
        living = 0
        for row in self._table.to_pylist():
            if row["record"] is None:
                continue
            part = row["part"]
            if part not in opened:
                opened[part] = self.shard_key(part, recipient_key, locks)
            open_record(opened[part], self.context.face(row["sample"], row["face_index"]), row["record"])
            living += 1
        return living

    def rewrapped(
        self,
        add: Sequence[Recipient],
        remove: Collection[str],
        recipient_key: Unwrapper | None = None,
        opened: OpenLocks | None = None,
    ) -> bytes:
        """The file with recipients added and removed (by fingerprint); not one record changes.

        Wraps of recipients that stay are kept as they are. Adding needs `recipient_key`, to unwrap the recipients' half once,
        and under a policy the quorum's `opened` locks: adding a recipient is theirs to approve.
        Raises: MisuseError if nobody would be left, or a key is needed and missing; as `shard_key` does.
        """
        kept = [place for place, fingerprint in enumerate(self.sealed_to) if fingerprint not in remove]
        new = [one for one in add if one.fingerprint not in self.sealed_to]
        if not kept and not new:
            raise MisuseError(f"nobody could open {self.context.shard} any more.", advice="Add a recipient in the same step.")
        if new and recipient_key is None:
            raise MisuseError("adding a recipient takes the private key of a present one.")
        parts = []
        for number, part in enumerate(self.parts):
            wraps: tuple[bytes, ...] = ()
            if part.wraps:
                wraps = tuple(part.wraps[place] for place in kept)
                if new and recipient_key is not None:
                    key = self.shard_key(number, recipient_key, opened)  # also checks what is about to be passed on
                    info = wrap_context(self.context, part.commitment, self.locks[part.lock] if part.lock >= 0 else None)
                    half = recipient_key.unwrap(part.wraps[self.check_recipient(recipient_key.fingerprint)], info)
                    wraps += tuple(recipient.wrap(half if part.lock >= 0 else key, info) for recipient in new)
            parts.append(Part(part.commitment, wraps, part.lock, part.quorum_wrap))
        recipients = [self.recipients[place] for place in kept] + [(one.fingerprint, one.kind) for one in new]
        return write_layout(Layout(self.context, recipients, parts, self._table, self.locks))

    def resealed(
        self, recipients: Sequence[Recipient], lock: ShardLock, recipient_key: Unwrapper, opened: OpenLocks | None = None
    ) -> bytes:
        """The file under a new lock and fresh shard keys, wrapped to `recipients` anew; payloads' seals stay as they are.

        Args:
            lock: of the new policy, for this very shard.
            opened: the present lock, where there is one.
        Raises: as `shard_key` and `open_record` do.
        """
        old = {n: self.shard_key(n, recipient_key, opened) for n, part in enumerate(self.parts) if part.wraps}
        fresh = {number: make_shard_key(self.context, recipients, lock) for number in old}
        samples, indices, numbers, records, dates = (self._table[name].to_pylist() for name in COLUMNS)
        for row, (sample, index, part, record) in enumerate(zip(samples, indices, numbers, records, strict=True)):
            if record is not None:
                face = self.context.face(sample, index)
                records[row] = reseal_record(old[part], fresh[part].key, face, record)
        parts = [
            Part(fresh[n].commitment, fresh[n].wraps, 0, fresh[n].quorum_wrap) if n in fresh else Part(part.commitment, (), 0)
            for n, part in enumerate(self.parts)
        ]
        sealed_to = [(one.fingerprint, one.kind) for one in recipients]
        return write_layout(
            Layout(self.context, sealed_to, parts, make_table(samples, indices, numbers, records, dates), [lock])
        )

    def without(self, selected: Callable[[Face], bool], now: int) -> tuple[bytes, list[Face]]:
        """The file with the selected living records destroyed, and which those were (none: the bytes are not to be used)."""
        samples, indices, numbers, records, dates = (self._table[name].to_pylist() for name in COLUMNS)
        destroyed = []
        for row, face in enumerate(zip(samples, indices, strict=True)):
            if records[row] is not None and selected(face):
                records[row], dates[row] = None, now
                destroyed.append(face)
        alive = {number for number, record in zip(numbers, records, strict=True) if record is not None}
        # The wraps of a part without living rows go too: the shard key dies with its last face.
        parts = [part if number in alive else part.destroyed() for number, part in enumerate(self.parts)]
        table = make_table(samples, indices, numbers, records, dates)
        layout = Layout(self.context, self.recipients, parts, table, self.locks)
        return write_layout(layout.without_idle_locks()), destroyed

    def _row(self, sample: str, face_index: int) -> dict[str, Any]:
        from pyarrow import compute

        rows = self._table.filter(compute.equal(self._table["sample"], sample)).to_pylist()
        found = [row for row in rows if row["face_index"] == face_index]
        if not found:
            known = ", ".join(str(row["face_index"]) for row in rows)
            has = f"its faces are {known}" if rows else "the sample has no face on record"
            raise UnknownFaceError(f"{self.context.shard} has no record of face {face_index} of sample {sample}; {has}.")
        if len(found) > 1:
            where = f"{self.context.shard} has {len(found)} records of face {face_index} of sample {sample}"
            raise KeyFileError(f"{where}: a row was doubled.")
        return found[0]

"""The audit log: one writer appends, anyone reads and checks.

Appending: lock -> check the signed head and the right edge -> write "pending" -> entry bundles and tiles -> signed checkpoint
-> remove the partial files of tiles that became full, and "pending". The checkpoint is the commit point: a crash before it
leaves the old log (and files beyond its size, which the next append overwrites or removes), a crash after it leaves the new
one.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keys.audit.checkpoint import Checkpoint, NoteKey, NoteVerifier, open_checkpoint, sign_checkpoint
from keys.audit.events import AuditEvent
from keys.audit.merkle import EMPTY_ROOT
from keys.audit.segments import AuditSegments
from keys.audit.tiles import CHECKPOINT, WIDTH, TreeBuilder, parse_tile_path, read_bundle, tile_path, tiles_of
from keys.errors import AuditError, MisuseError
from keys.files import open_location
from keys.lockbox import canonical_json

if TYPE_CHECKING:
    from keys.audit.verify import VerifyReport

PENDING = "pending"
LOCK = "lock"
CASES_LOCK = "lock-cases"
_FLUSH = 512  # full tiles held in memory before they are written: about 5 MB


@dataclass(frozen=True)
class Appended:
    """Where the events landed, and the head that covers them."""

    first: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Integrated:
    """What a round of integration did."""

    added: tuple[str, ...]
    skipped: tuple[str, ...]  # were in the log already
    checkpoint: Checkpoint


class AuditLog:
    """A log at a local path or any fsspec URL.

    Args:
        url: the folder of the log.
        key: the log's signing key; needed to append, not to read.
        verifier: the log's public key; by default that of `key`. A reader that trusts nothing in the folder must give one.
    Raises: AuditError wherever what is stored does not fit its signature or hashes; the log is then not appended to.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        key: NoteKey | None = None,
        verifier: NoteVerifier | None = None,
        **storage_options: Any,
    ) -> None:
        if key is None and verifier is None:
            raise MisuseError("the audit log can't be read without its public key.", advice="Give the log's .vkey file.")
        self.location = open_location(url, **storage_options)
        self.url = self.location.url
        self.key = key
        self.verifier = verifier or key.verifier  # type: ignore[union-attr]
        self.segments = AuditSegments(f"{self.url.rstrip('/')}/segments", **storage_options)

    # --- reading ---------------------------------------------------------------------------------------------------

    def checkpoint(self, witnesses: Sequence[NoteVerifier] = ()) -> Checkpoint:
        """The signed head, its signature checked. A log that was never written to has size 0."""
        note = self.location.read_if_there(CHECKPOINT)
        if note is not None:
            return open_checkpoint(note, self.verifier, witnesses, what=f"{self.location.describe(CHECKPOINT)}")
        # A folder without a checkpoint is an empty log only if nothing else says that it had entries.
        if self.location.names("tile") and self.location.read_if_there(PENDING) is None:
            raise AuditError(f"{self.url} has tiles but no checkpoint: the checkpoint was removed.")
        return Checkpoint(self.verifier.name, 0, EMPTY_ROOT)

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(index, entry), not checked against the tree: for display and search; `verify` checks."""
        size = self.checkpoint().size
        end = size if end is None else min(end, size)
        for number in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
            for offset, entry in enumerate(read_bundle(self.location, number, size)):
                if start <= number * WIDTH + offset < end:
                    yield number * WIDTH + offset, entry

    def events(self, *containing: str, where: Callable[[AuditEvent], bool] | None = None) -> Iterator[tuple[int, AuditEvent]]:
        """(index, event) of the entries whose bytes contain every one of the texts `containing`: cheap on long logs."""
        needles = [text.encode() for text in containing]
        for index, entry in self.entries():
            if all(needle in entry for needle in needles):
                event = AuditEvent.decode(entry, where=f"entry {index} of {self.url}")
                if where is None or where(event):
                    yield index, event

    def verify(self, **options: Any) -> "VerifyReport":
        """Check everything: see keys.audit.verify.verify_log."""
        from keys.audit.verify import verify_log

        return verify_log(self, **options)

    def serialised(self) -> contextlib.AbstractContextManager[None]:
        """Held around "look at the log, decide, append": two recoveries of one case must not both see it unreleased."""
        return self.location.locked(CASES_LOCK)

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(self, events: Iterable[AuditEvent]) -> Appended:
        """Add events and sign the new head; all are durable when this returns, or none is in the log."""
        with self.location.locked(LOCK):
            return self._append(event.encode() for event in events)

    def integrate(
        self,
        segments: AuditSegments | None = None,
        ids: Sequence[str] | None = None,
        expected: Mapping[str, str] | None = None,
    ) -> Integrated:
        """Put segments into the log, sorted by id, each once: its "segment integrated" entry, then its events.

        A segment that the log holds already is skipped. One that was overwritten since (a redo of its shard) enters again, and
        its entry names the digest that it supersedes.

        Args:
            segments: by default those in the log's own folder "segments".
            ids: which ones; by default all.
            expected: SHA-256 per id as `put` gave it back; a segment that differs is refused.
        """
        segments = segments if segments is not None else self.segments
        chosen = sorted(ids) if ids is not None else segments.list()
        with self.location.locked(LOCK):
            known = self.integrated_segments()
            added: list[str] = []
            skipped: list[str] = []

            def entries() -> Iterator[bytes]:
                for segment_id in chosen:
                    segment = segments.get(segment_id)
                    if expected is not None and expected.get(segment_id, segment.sha256) != segment.sha256:
                        raise AuditError(f"audit segment {segment_id} is not the one its commit record names: it was altered.")
                    if known.get(segment_id) == segment.sha256:
                        skipped.append(segment_id)
                        continue
                    facts = {"segment": segment_id, "sha256": segment.sha256, "events": len(segment.entries)}
                    if segment_id in known:
                        facts["supersedes"] = known[segment_id]
                    added.append(segment_id)
                    yield AuditEvent("segment integrated", self._segment_time(segment.events()), facts).encode()
                    yield from segment.entries

            result = self._append(entries())
        return Integrated(tuple(added), tuple(skipped), result.checkpoint)

    def integrated_segments(self) -> dict[str, str]:
        """SHA-256 of every segment in the log, the newest where one was redone."""
        found = {}
        for _, event in self.events('"kind":"segment integrated"}'):
            found[event.facts["segment"]] = event.facts["sha256"]
        return found

    @staticmethod
    def _segment_time(events: Sequence[AuditEvent]) -> int:
        """The time of its last event, so that the same segments give the same entries whenever they are integrated."""
        return max((event.at for event in events), default=0)

    def add_cosignature(self, line: bytes, witness: NoteVerifier) -> Checkpoint:
        """Put a witness's signature line under the present checkpoint. Raises: AuditError if it is not one of that."""
        with self.location.locked(LOCK):
            note = self.checkpoint().note
            if line not in note:
                note += line
            checkpoint = open_checkpoint(note, self.verifier, [witness], what="the cosigned checkpoint")
            if not checkpoint.witnesses:
                raise AuditError(f"the signature line is not by {witness.name}, or not under the log's present checkpoint.")
            self.location.write(CHECKPOINT, note)
        return checkpoint

    def _append(self, entries: Iterable[bytes]) -> Appended:
        if self.key is None:
            raise MisuseError(f"{self.url} can't be appended to without the log's signing key.")
        head = self.checkpoint()
        interrupted = self.location.read_if_there(PENDING)
        builder = TreeBuilder.resume(self.location, head.size)
        if builder.root() != head.root:
            raise AuditError(f"{self.url}: the newest tiles don't give the root in the checkpoint; the log was altered.")
        if interrupted is not None:
            self._clean(head.size)
        done: list[tuple[str, bytes]] = []
        first, started = head.size, False
        for entry in entries:
            if not started:
                self.location.write(PENDING, canonical_json({"from": head.size}))
                started = True
            builder.add(entry)
            done += builder.take()
            if len(done) >= _FLUSH:
                self.location.write_many(done)
                done = []
        if started:
            self.location.write_many([*done, *builder.edge()])
            note = sign_checkpoint(self.key, builder.size, builder.root())
            self.location.write(CHECKPOINT, note)
            self._drop_partials(head.size)
            head = open_checkpoint(note, self.verifier)
        if started or interrupted is not None:
            self.location.delete(PENDING)
        return Appended(first, head)

    def _drop_partials(self, old: int) -> None:
        """The partial files of tiles that became full: whoever needs one finds its content at the start of the full tile."""
        for level, number, width in tiles_of(old):
            if width < WIDTH and self.location.read_if_there(tile_path(level, number)) is not None:
                for path in self.location.names(tile_path(level, number) + ".p"):
                    self.location.delete(path)

    def _clean(self, size: int) -> None:
        """Remove what an interrupted append left: every tile file that reaches beyond a log of this size."""
        ends = {level: number * WIDTH + width for level, number, width in tiles_of(size)}
        for path in self.location.names("tile"):
            tile = parse_tile_path(path)
            if tile is not None and tile[1] * WIDTH + tile[2] > ends.get(tile[0], 0):
                self.location.delete(path)

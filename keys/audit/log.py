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
from typing import Any

from diffpriv.keys.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from diffpriv.keys.audit.events import AuditEvent, from_iso, to_iso
from diffpriv.keys.audit.heads import KeptHead
from diffpriv.keys.audit.merkle import EMPTY_ROOT, leaf_hash
from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.audit.tiles import (
    CHECKPOINT,
    WIDTH,
    TreeBuilder,
    parse_tile_path,
    read_bundle,
    read_bundles,
    tile_path,
    tiles_of,
)
from diffpriv.keys.errors import AuditError, MisuseError
from diffpriv.keys.files import open_location
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.notes import NoteKey, NoteVerifier

PENDING = "pending"
LOCK = "lock"
CASES_LOCK = "lock-cases"
_FLUSH = 512  # full tiles held in memory before they are written: about 5 MB


_DATED = b'{"at":"'
_AT = slice(len(_DATED), len(_DATED) + 20)  # an entry's time, in a form that sorts


def _time(at: bytes) -> int:
    try:
        return from_iso(at.decode())
    except ValueError:  # no entry, or one in another form, which verify reports
        return 0


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
        kept: heads that this reader or writer keeps (keys/audit/heads.py); a log that does not extend them is refused.
    Raises: AuditError wherever what is stored does not fit its signature or hashes; the log is then not appended to.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        key: NoteKey | None = None,
        verifier: NoteVerifier | None = None,
        kept: Sequence[KeptHead] = (),
        **storage_options: Any,
    ) -> None:
        if key is None and verifier is None:
            raise MisuseError("the audit log can't be read without its public key.", advice="Give the log's .vkey file.")
        self.location = open_location(url, **storage_options)
        self.url = self.location.url
        self.key = key
        self.verifier = verifier or key.verifier  # type: ignore[union-attr]
        self.segments = AuditSegments(f"{self.url.rstrip('/')}/segments", **storage_options)
        self.kept = tuple(kept)
        self._newest = (b"", 0)  # (root, Unix seconds) of the last reading

    # --- reading ---------------------------------------------------------------------------------------------------

    def checkpoint(self, witnesses: Sequence[NoteVerifier] = ()) -> Checkpoint:
        """The signed head: its signature checked, and that it extends every kept head. A log never written to has size 0."""
        last = [one.last(self.verifier) for one in self.kept]  # before the log: another process may append in between
        note = self.location.read_if_there(CHECKPOINT)
        if note is not None:
            head = open_checkpoint(note, self.verifier, witnesses, what=f"{self.location.describe(CHECKPOINT)}")
        elif self.location.names("tile"):  # the first append signs an empty head before it writes a tile
            raise AuditError(
                f"{self.url} has tiles but no checkpoint: the checkpoint was removed.",
                advice="Restore it: a kept head, a witness or an auditor has the signed note.",
            )
        else:
            head = Checkpoint(self.verifier.name, 0, EMPTY_ROOT)
        for one, seen in zip(self.kept, last, strict=True):
            one.check(seen, head, self.location)
        return head

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(index, entry), not checked against the tree: nothing is decided from these; see `read_proved`."""
        size = self.checkpoint().size
        end = size if end is None else min(end, size)
        for number in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
            for offset, entry in enumerate(read_bundle(self.location, number, size)):
                if start <= number * WIDTH + offset < end:
                    yield number * WIDTH + offset, entry

    def read_proved(self, visit: Callable[[int, bytes], None]) -> Checkpoint:
        """Hand every entry to `visit`, and prove that they are all of the signed head's, none missing, none altered.

        Raises: AuditError after the last one if they are not; what was visited is then worth nothing.
        """
        head = self.checkpoint()
        builder = TreeBuilder()
        newest = b""
        for number, bundle in read_bundles(self.location, head.size):
            for offset, entry in enumerate(bundle):
                builder.add_leaf(leaf_hash(entry))
                newest = max(newest, entry[_AT]) if entry.startswith(_DATED) else newest
                visit(number * WIDTH + offset, entry)
            builder.take()
        if builder.root() != head.root:
            raise AuditError(
                f"the {head.size} entries of {self.url} don't give the root that its key signed: an entry was altered.",
                advice='Run "diffpriv audit verify", which names it; nothing is decided from this log.',
            )
        self._newest = head.root, _time(newest)
        return head

    def newest(self) -> int:
        """The latest time that an entry states, Unix seconds: before it, no decision is taken."""
        if self._newest[0] != self.checkpoint().root:
            self.read_proved(lambda index, entry: None)
        return self._newest[1]

    def events(self, *containing: str, where: Callable[[AuditEvent], bool] | None = None) -> Iterator[tuple[int, AuditEvent]]:
        """(index, event) of the entries whose bytes contain every one of the texts `containing`, proved before the first."""
        needles = [text.encode() for text in containing]
        found: list[tuple[int, bytes]] = []

        def visit(index: int, entry: bytes) -> None:
            if all(needle in entry for needle in needles):
                found.append((index, entry))

        self.read_proved(visit)
        for index, entry in found:
            event = AuditEvent.decode(entry, where=f"entry {index} of {self.url}")
            if where is None or where(event):
                yield index, event

    def serialised(self) -> contextlib.AbstractContextManager[None]:
        """Held around "look at the log, decide, append": two recoveries of one case must not both see it unreleased."""
        return self.location.locked(CASES_LOCK)

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(self, events: Iterable[AuditEvent]) -> Appended:
        """Add events and sign the new head; all are durable when this returns, or none is in the log.

        Raises: AuditError for an event dated before the newest entries: a clock that was set back decides nothing.
        """
        with self.location.locked(LOCK):
            return self._append(self._in_order(events))

    def _in_order(self, events: Iterable[AuditEvent]) -> Iterator[bytes]:
        size = self.checkpoint().size
        recent = read_bundle(self.location, (size - 1) // WIDTH, size) if size else []
        newest = _time(max((entry[_AT] for entry in recent if entry.startswith(_DATED)), default=b""))
        for event in events:
            if event.at < newest:
                raise AuditError(
                    f"a {event.kind!r} entry would be dated {to_iso(event.at)}, before the log's newest, {to_iso(newest)}.",
                    advice="Set this machine's clock right: time never runs backwards in the log.",
                )
            newest = event.at
            yield event.encode()

    def integrate(
        self,
        segments: AuditSegments | None = None,
        ids: Sequence[str] | None = None,
        expected: Mapping[str, str] | None = None,
        settled: Mapping[str, str] | None = None,
    ) -> Integrated:
        """Put segments into the log, sorted by id, each once: its "segment integrated" entry, then its events.

        A segment that the log holds already is skipped. One that was overwritten since (a redo of its shard) enters again, and
        its entry names the digest that it supersedes.

        Args:
            segments: by default those in the log's own folder "segments".
            ids: which ones; by default all.
            expected: SHA-256 per id as `put` gave it back; a segment that differs is refused.
            settled: SHA-256 per id of segments of earlier runs. Where the log holds that very digest, the segment's file is not
                read again: an object each, of which a large dataset has 100,000.
        """
        segments = segments if segments is not None else self.segments
        chosen = sorted(ids) if ids is not None else segments.list()
        with self.location.locked(LOCK):
            known = self.integrated_segments()
            added: list[str] = []
            skipped = [name for name in chosen if settled and name in known and settled.get(name) == known[name]]
            left_alone = set(skipped)

            def entries() -> Iterator[bytes]:
                for segment in segments.get_many([name for name in chosen if name not in left_alone]):
                    segment_id = segment.id
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
        if not head.note:  # from now on, a folder without a checkpoint is one that lost it
            self.location.write(CHECKPOINT, sign_checkpoint(self.key, 0, EMPTY_ROOT))
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
            for one in self.kept:
                one.keep(head)
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

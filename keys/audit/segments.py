"""Segments: what parallel workers log. Each writes files of its own; one sequencer puts them into the log, in a fixed order.

A segment is one file, <id, percent-encoded>.jsonl, UTF-8:
    line 1       {"events": n, "format": "diffpriv audit segment", "segment": id, "sha256": hex of what follows, "version": 1}
    n lines      one event each, as keys/audit/events.py encodes it
A redo overwrites its segment. The digest in line 1 finds accidents; against a forger, the caller keeps the SHA-256 that `put`
gave back (in the commit record) and hands it to `AuditLog.integrate`, whose "segment integrated" entry then fixes it for good.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.errors import AuditError
from diffpriv.keys.files import open_location
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.store import encode_name

_FORMAT = "diffpriv audit segment"
_SUFFIX = ".jsonl"
# Workers don't hold the log's key. Were they to log approvals, shreddings or rotations, an object store's admin could justify
# anything by writing a segment.
KINDS_OF_WORKERS = frozenset({"run started", "shard committed", "sample quarantined", "run finished"})


@dataclass(frozen=True)
class Segment:
    """The events of a shard, written by a worker and not yet in the log."""

    id: str
    sha256: str  # of the file
    entries: tuple[bytes, ...]  # the encoded events

    def events(self) -> list[AuditEvent]:
        return [
            AuditEvent.decode(entry, where=f"line {line} of segment {self.id}") for line, entry in enumerate(self.entries, 2)
        ]


class AuditSegments:
    """Segments at a local path or any fsspec URL; by convention the folder "segments" of the audit URL."""

    def __init__(self, url: str | os.PathLike[str], **storage_options: Any) -> None:
        self.location = open_location(url, **storage_options)

    def put(self, segment_id: str, events: Sequence[AuditEvent]) -> str:
        """Write or overwrite one; durable and atomic when this returns. Gives back the file's SHA-256."""
        data = encode_segment(segment_id, events)
        self.location.write(encode_name(segment_id) + _SUFFIX, data)
        return hashlib.sha256(data).hexdigest()

    def get(self, segment_id: str) -> Segment:
        """Raises: StorageError, AuditError naming the segment and what is wrong with it."""
        return decode_segment(self.location.read(encode_name(segment_id) + _SUFFIX), segment_id)

    def get_many(self, ids: Sequence[str]) -> Iterator[Segment]:
        """The same for many, in order; an object store is asked for a hundred at a time."""
        names = [encode_name(segment_id) + _SUFFIX for segment_id in ids]
        for segment_id, (_, data) in zip(ids, self.location.read_many(names), strict=True):
            yield decode_segment(data, segment_id)

    def list(self) -> list[str]:
        """Ids, sorted: the order in which they enter the log."""
        return sorted(
            unquote(name[: -len(_SUFFIX)]) for name in self.location.names() if name.endswith(_SUFFIX) and "/" not in name
        )

    def delete(self, segment_id: str) -> bool:
        return self.location.delete(encode_name(segment_id) + _SUFFIX)


def encode_segment(segment_id: str, events: Sequence[AuditEvent]) -> bytes:
    """The segment's bytes: a line that says what follows, then an event a line."""
    if not {event.kind for event in events} <= KINDS_OF_WORKERS:
        raise ValueError("a segment holds what workers may log, and nothing about recoveries or key files")
    body = b"".join(event.encode() + b"\n" for event in events)
    head = {
        "format": _FORMAT,
        "version": 1,
        "segment": segment_id,
        "events": len(events),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return canonical_json(head) + b"\n" + body


def decode_segment(data: bytes, segment_id: str) -> Segment:
    """Read a segment, refusing one whose lines, digest or name do not fit."""
    head, newline, body = data.partition(b"\n")
    where = f"audit segment {segment_id}"
    try:
        fields = parse_json(head)
        known = fields["format"] == _FORMAT and fields["version"] == 1
        stated = (fields["segment"], fields["events"], fields["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{where} is damaged in its first line.") from error
    if not known or canonical_json(fields) != head or not newline:
        raise AuditError(f"{where} is damaged in its first line.")
    if stated[0] != segment_id:
        raise AuditError(f"{where} is really segment {stated[0]}: files were swapped or renamed.")
    if hashlib.sha256(body).hexdigest() != stated[2]:
        raise AuditError(f"{where} is damaged: its events don't fit its digest.")
    entries = tuple(body.split(b"\n")[:-1])
    if len(entries) != stated[1]:
        raise AuditError(f"{where} has {len(entries)} events where its first line says {stated[1]}.")
    segment = Segment(segment_id, hashlib.sha256(data).hexdigest(), entries)
    for event in segment.events():  # nothing enters the log that a reader could not decode
        if event.kind not in KINDS_OF_WORKERS:
            raise AuditError(f"{where} holds a {event.kind!r} event, which no worker may log; it was forged.")
    return segment

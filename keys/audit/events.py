"""What the audit log records: facts and salted commitments, never pixels, embeddings, key bytes or people's names in clear.

An entry is canonical JSON (sorted keys, no spaces, UTF-8): {"at": "2026-11-25T07:00:00Z", "facts": {...}, "kind": "..."}.
A sample's name can be a person's ("anna_b.jpg"), so it only enters as a commitment:
SHA-256(canonical("diffpriv/v1/commitment", salt, dataset, shard, sample)), whose 16 random salt bytes stay with whoever may
know the name (quarantine list, request, receipt).
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from diffpriv.keys.context import ShardContext, canonical
from diffpriv.keys.errors import AuditError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.store import Receipt

# What each kind must say; other facts may be added, as long as they are numbers, short texts or lists of those.
KINDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        kind: frozenset(facts.split())
        for kind, facts in {
            "run started": "run dataset config_digest",
            "shard committed": "run dataset shard config_digest faces key_file_sha256 data_sha256",
            "sample quarantined": "run dataset shard sample_commitment reason",
            "run finished": "run dataset",
            "segment integrated": "segment sha256 events",
            "supersession acknowledged": "entry leaf custodian acknowledgement",
            "policy pinned": "policy form",
            "key files opened": "by key_files",
            "recovery requested": "case requester quorum policy faces expires_at",
            "recovery approved": "case custodian approval",
            "recovery denied": "case custodian denial",
            "recovery expired": "case",
            "recovery refused": "case step reason by",
            "recovery released": "case faces",
            "recovery opened": "case",
            "recovery failed": "case reason",
            "face shredded": "dataset shard scope faces commitment old_key_file_sha256 key_file_sha256",
            "recipient rotated": "dataset shard added removed old_key_file_sha256 key_file_sha256",
        }.items()
    }
)
# Facts of these names would be what the log must not hold.
_FORBIDDEN = frozenset(
    {"sample", "samples", "name", "person", "image", "crop", "pixels", "embedding", "payload", "face_key", "key", "salt"}
)


@dataclass(frozen=True)
class AuditEvent:
    """One entry. `at` is Unix seconds, given by the caller.

    Raises: ValueError (a programming mistake) for an unknown kind, a missing fact, or a fact the log must not hold.
    """

    kind: str
    at: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of audit event")
        missing = KINDS[self.kind] - self.facts.keys()
        if missing:
            raise ValueError(f"a {self.kind!r} event must state {', '.join(sorted(missing))}")
        _check_facts(self.facts)
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def __reduce__(self) -> tuple[Any, ...]:
        return AuditEvent, (self.kind, self.at, dict(self.facts))

    def encode(self) -> bytes:
        return canonical_json({"at": to_iso(self.at), "facts": dict(self.facts), "kind": self.kind})

    @classmethod
    def decode(cls, entry: bytes, *, where: str = "the entry") -> "AuditEvent":
        """Raises: AuditError if the bytes are not exactly what `encode` would give."""
        try:
            body = parse_json(entry)
            event = cls(body["kind"], from_iso(body["at"]), body["facts"])
            same = event.encode() == entry
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"{where} is not an audit event.") from error
        if not same:
            raise AuditError(f"{where} is not in canonical form.")
        return event


def to_iso(at: int) -> str:
    """Seconds since 1970 as UTC text."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_iso(text: str) -> int:
    """Raises: ValueError."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())


def commit_names(*names: str, salt: bytes | None = None) -> tuple[str, str]:
    """(commitment, salt), both hex: the commitment may be logged, the salt stays with whoever may know the names."""
    salt = os.urandom(16) if salt is None else salt
    return hashlib.sha256(canonical("diffpriv/v1/commitment", salt, *(name.encode() for name in names))).hexdigest(), salt.hex()


def run_started(at: int, run: str, dataset: str, config_digest: str, **facts: Any) -> AuditEvent:
    """The entry that opens a run."""
    return AuditEvent("run started", at, {"run": run, "dataset": dataset, "config_digest": config_digest, **facts})


def shard_committed(
    at: int, run: str, context: ShardContext, *, faces: int, key_file: Receipt | None, data_sha256: str, **facts: Any
) -> AuditEvent:
    """`key_file` is what the key store gave back; None for tier `none`, which keeps no keys."""
    return AuditEvent(
        "shard committed",
        at,
        {
            "run": run,
            "dataset": context.dataset,
            "shard": context.shard,
            "config_digest": context.config_digest,
            "faces": faces,
            "key_file_sha256": key_file.sha256 if key_file else None,
            "data_sha256": data_sha256,
            **facts,
        },
    )


def sample_quarantined(at: int, run: str, context: ShardContext, sample_commitment: str, reason: str) -> AuditEvent:
    """`sample_commitment` from commit_names(dataset, shard, sample); `reason` a code, never words that could hold a name."""
    facts = {"run": run, "dataset": context.dataset, "shard": context.shard}
    return AuditEvent("sample quarantined", at, facts | {"sample_commitment": sample_commitment, "reason": reason})


def run_finished(at: int, run: str, dataset: str, **counts: Any) -> AuditEvent:
    """The entry that closes a run, with its counts."""
    return AuditEvent("run finished", at, {"run": run, "dataset": dataset, **counts})


def _check_facts(facts: Mapping[str, Any]) -> None:
    bad = _FORBIDDEN & facts.keys()
    if bad:
        raise ValueError(f"the audit log must not hold {', '.join(sorted(bad))}")
    for name, value in facts.items():
        _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    if isinstance(value, str):
        if len(value) > 4096:
            raise ValueError(f"the fact {name!r} is too long for the audit log")
    elif isinstance(value, dict):
        _check_facts(value)
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        for one in value:
            _check_value(name, one)
    elif not (value is None or isinstance(value, (bool, int, float))):
        raise ValueError(f"the fact {name!r} has a type that the audit log does not hold")

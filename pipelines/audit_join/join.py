"""Outputs × keys × audit log, shard by shard and face by face: what is missing, orphaned, doubled or altered. Pure.

A published shard should have a key file with a record for every recoverable face (or a shredded row in its place), and one
commit entry in the log that names the digests of both. `audit_join.collect` collects the three sides and calls this.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OutputSide:
    """A commit record of DST, with the data's digest measured now."""

    data_sha256: str
    faces: tuple[tuple[str, int], ...]  # those with a sealed record
    keeps_keys: bool


@dataclass(frozen=True)
class KeySide:
    """A key file; `problem` when it cannot be parsed."""

    sha256: str
    faces: tuple[tuple[str, int], ...]
    problem: str = ""


@dataclass(frozen=True)
class AuditSide:
    """What the log says last of a shard. `commits`: entries per run, to find doubled ones."""

    data_sha256: str
    key_file_sha256: str | None
    runs: tuple[str, ...]


@dataclass(frozen=True, order=True)
class JoinMismatch:
    """Attributes:
    kind: "missing", "orphaned", "doubled" or "altered".
    what: "output", "key file", "key record" or "audit entry".
    """

    dataset: str
    shard: str
    kind: str
    what: str
    detail: str


def join_shard(
    shard: tuple[str, str], outputs: Sequence[OutputSide], keys: Sequence[KeySide], audits: Sequence[AuditSide]
) -> list[JoinMismatch]:
    """Everything that does not fit about one (dataset, shard). Samples are named by how many, not by name."""

    def found(kind: str, what: str, detail: str) -> JoinMismatch:
        return JoinMismatch(shard[0], shard[1], kind, what, detail)

    mismatchs = [
        found("doubled", what, f"{len(side)} times")
        for what, side in (("output", outputs), ("key file", keys), ("audit entry", audits))
        if len(side) > 1
    ]
    output = outputs[0] if outputs else None
    key = keys[0] if keys else None
    audit = audits[0] if audits else None
    if output is None:
        mismatchs += [found("orphaned", "key file", "no published shard goes with it")] if key else []
        mismatchs += [found("orphaned", "audit entry", "no published shard goes with it")] if audit else []
        return sorted(mismatchs)
    if audit is None:
        mismatchs.append(found("missing", "audit entry", "the shard is published, the log does not know it"))
    else:
        if audit.data_sha256 != output.data_sha256:
            mismatchs.append(found("altered", "output", "its digest is not the one in the log"))
        repeated = [run for run, times in Counter(audit.runs).items() if times > 1]
        mismatchs += [found("doubled", "audit entry", f"run {run} committed it more than once") for run in repeated]
    if key is None:
        mismatchs += [found("missing", "key file", f"{len(output.faces)} faces have no record")] if output.keeps_keys else []
        return sorted(mismatchs)
    if audit is not None and audit.key_file_sha256 != key.sha256:
        mismatchs.append(found("altered", "key file", "its digest is not the one in the log"))
    if key.problem:
        return sorted([*mismatchs, found("altered", "key file", key.problem)])
    missing, orphaned = set(output.faces) - set(key.faces), set(key.faces) - set(output.faces)
    doubled = len(key.faces) - len(set(key.faces))
    for kind, count in (("missing", len(missing)), ("orphaned", len(orphaned)), ("doubled", doubled)):
        mismatchs += [found(kind, "key record", f"{count} faces")] if count else []
    return sorted(mismatchs)

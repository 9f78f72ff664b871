"""`diffpriv keys rotate --policy`: shards move under a new custody policy, or let a recipient in, as their quorum approved.

    request with a `change` -> approvals of the old policy's quorum -> release -> the new policy is pinned -> shard by shard:
    open the old lock, unwrap, fresh shard key and lock (keys/keyfile.py, `resealed`) -> log -> replace (keys/rewriting.py)

The case is the resume point: until it expires it can be run again, passes over what is done, and finishes. Shards that no
policy locks need no case: the recipient's key alone opens them, so it may lock them too. Payloads' seals are never touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffpriv.keys.audit.custody import policy_pinned
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.changes import Change
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.identity import rewrap_identity_roots
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.quorum import OpenLocks, ShardLock
from diffpriv.keys.recipients import Recipient, Unwrapper
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import open_case_locks
from diffpriv.keys.requests import CaseLock, Decision
from diffpriv.keys.rewriting import KeyFileRewriter
from diffpriv.keys.rotation import RotationReport
from diffpriv.keys.store import KeyStore


@dataclass(frozen=True)
class Approved:
    """A case that the present policy's quorum approved for a change, with what was mailed."""

    case: RecoveryCase
    decisions: Sequence[Decision] = ()
    run_key: Unwrapper | None = None


def name_locks(store: KeyStore, policy: CustodyPolicy, change: Change) -> list[CaseLock]:
    """The locks of every shard that the change concerns and `policy` locks: what its request names. Opens nothing."""
    found: dict[bytes, CaseLock] = {}
    for shard in store.list():
        file = KeyFile.parse(store.get(*shard), dataset=shard[0], shard=shard[1])
        if file.policy == policy.digest and not _done(file, change):
            found |= {lock.id: CaseLock(file.context, lock) for lock in file.locks}
    return list(found.values())


def reseal(
    store: KeyStore,
    log: AuditLog,
    recipient_key: Unwrapper,
    policy: CustodyPolicy,
    change: Change,
    *,
    now: int,
    known: Sequence[Recipient] = (),
    approved: Approved | None = None,
) -> RotationReport:
    """Carry the change out over the whole store. Safe to stop and to run again: finished files are passed over.

    Args:
        policy: the one that the change names; shards are locked under it from then on.
        known: public halves of the recipients that stay or come.
        approved: needed as soon as one shard is locked.
    Raises: MisuseError, QuorumError, RecoveryRefusedError, WitnessError, KeyFileError naming the shard. Files done by then
    stay done.
    """
    report = RotationReport()
    rewriter = KeyFileRewriter(store, log, report.rewrapped.append)
    pinned = rewriter.pinned
    _check_change(policy, change, approved, pinned)
    public = {one.fingerprint: one for one in known}
    todo = []
    for shard in store.list():
        file = rewriter.read(*shard)
        if _done(file, change):
            report.unchanged.append(shard)
            continue
        _check_file(file, change, approved, public)
        todo.append(shard)
    if not todo:
        return report
    locks = OpenLocks()
    if approved is not None:
        _, locks = open_case_locks(approved.case, now, approved.decisions, approved.run_key)
    case = approved.case.case if approved is not None else ""
    if policy.digest not in pinned:
        log.append([policy_pinned(now, policy, case)])
    for shard in todo:
        _replace(rewriter, rewriter.read(*shard), policy, change, recipient_key, public, locks, case, now)
    rewriter.flush()
    rewrap_identity_roots(store, [public[to] for to in change.add], change.remove, recipient_key)
    return report


def _replace(
    rewriter: KeyFileRewriter,
    file: KeyFile,
    policy: CustodyPolicy,
    change: Change,
    recipient_key: Unwrapper,
    public: Mapping[str, Recipient],
    locks: OpenLocks,
    case: str,
    now: int,
) -> None:
    """One shard: under the same policy other wraps, under another one fresh keys and a fresh lock."""
    before, after = file.sealed_to, _recipients(file, change)
    to = [public[one] for one in after if one in public]
    if file.policy == policy.digest:
        data = file.rewrapped([one for one in to if one.fingerprint not in before], change.remove, recipient_key, locks)
    else:
        data = file.resealed(to, ShardLock.make(file.context, policy), recipient_key, locks)
    facts: dict[str, Any] = {"added": [one for one in after if one not in before]}
    facts |= {"removed": [one for one in before if one not in after], "policy": policy.digest}
    facts |= {"case": case} if case else {}
    rewriter.replace("recipient rotated", file, data, facts, now)


def _recipients(file: KeyFile, change: Change) -> list[str]:
    kept = [one for one in file.sealed_to if one not in change.remove]
    return kept + [one for one in change.add if one not in kept]


def _done(file: KeyFile, change: Change) -> bool:
    return not file.parts or (file.policy == change.policy and file.sealed_to == _recipients(file, change))


def _check_change(policy: CustodyPolicy, change: Change, approved: Approved | None, pinned: Sequence[str]) -> None:
    if policy.digest != change.policy:
        raise MisuseError(f"the change was approved for policy {change.policy[:12]}…, and this one is {policy.digest[:12]}….")
    if approved is not None and approved.case.request.change != change:
        raise MisuseError("the case was made for another change.")
    if pinned and policy.digest not in pinned and (policy.previous != pinned[-1] or approved is None):
        raise MisuseError(
            f"the log serves custody policy {pinned[-1][:12]}…; a new one follows it, approved by a case of its quorum.",
            advice='Make the new one with "keys policy --previous", then "keys rotate-request".',
        )
    if pinned and policy.digest in pinned[:-1]:
        raise MisuseError(f"policy {policy.digest[:12]}… was replaced by {pinned[-1][:12]}…; shards don't go back to it.")


def _check_file(file: KeyFile, change: Change, approved: Approved | None, public: dict[str, Recipient]) -> None:
    """What can be known beforehand to fail, before a release is logged."""
    name = f"{file.context.shard} of dataset {file.context.dataset}"
    missing = [one for one in _recipients(file, change) if one not in public]
    stays = file.policy == change.policy
    if [one for one in missing if not (stays and one in file.sealed_to)]:
        raise MisuseError(
            f"{name} stays sealed to recipient {missing[0]}, whose public file was not given.", advice="Give it with --add."
        )
    if not _recipients(file, change):
        raise MisuseError(f"nobody could open {name} any more.", advice="Add a recipient in the same step.")
    held = {one.lock.id for one in approved.case.request.locks} if approved is not None else set()
    if any(lock.id not in held for lock in file.locks):
        raise MisuseError(
            f"{name} is locked under policy {file.policy[:12]}…, and no case that was given names its lock.",
            advice='Ask its custodians with "diffpriv keys rotate-request"; shards of after a request need another.',
        )

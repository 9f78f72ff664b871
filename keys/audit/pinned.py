"""Which custody policy a log serves. A job that goes on under a replaced one would lock shards to people who left.

With the log's key the answer is proved, by the rules of keys/audit/custody.py. Without it, it is what the entries say: who can
write the log's folder may hide a policy from such a reader or invent one, and so let a job go on or stop it, but can't make it
seal to anybody whom its own settings do not name.
"""

from collections.abc import Sequence

from diffpriv.keys.audit.custody import KINDS, CustodyRules
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.tiles import CHECKPOINT, read_bundles
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import AuditError, MisuseError
from diffpriv.keys.files import Location

_PINNED = b'"kind":"policy pinned"}'
_REQUESTED = b'"kind":"recovery requested"}'


def custody_entries(log: AuditLog, case: str = "") -> tuple[bytes, list[tuple[int, bytes]]]:
    """The log's root, and its entries of policies, of the cases that changed those, and of `case`; proved against the head.

    Raises: AuditError.
    """
    found: list[tuple[int, bytes]] = []
    cases = [case.encode()] if case else []

    def take(index: int, entry: bytes) -> None:
        if entry.endswith(_REQUESTED) and b'"change":{' in entry:
            cases.append(AuditEvent.decode(entry).facts["case"].encode())
        if entry.endswith(_PINNED) or any(b'"case":"%b"' % one in entry for one in cases):
            found.append((index, entry))

    return log.read_proved(take).root, found


def apply_entries(rules: CustodyRules, entries: Sequence[tuple[int, bytes]], url: str) -> CustodyRules:
    """Feed what `custody_entries` gave to the rules."""
    for index, entry in entries:
        event = AuditEvent.decode(entry, where=f"entry {index} of {url}")
        if event.kind in KINDS:
            rules.apply(index, event)
    return rules


def check_serving(policy: CustodyPolicy, log: "AuditLog | Location") -> None:
    """That the log serves this policy, or none yet, or the one that this follows: jobs take up a new one before its case.

    Args:
        log: or its folder, for who has no key of it.
    Raises:
        MisuseError: it serves another one. AuditError, StorageError: it can't be read, or does not fit its key.
    """
    pinned = _proved(log) if isinstance(log, AuditLog) else _stated(log)
    if not pinned or pinned[-1] in (policy.digest, policy.previous):
        return
    mine, now = f"{policy.digest[:12]}…", f"{pinned[-1][:12]}…"
    raise MisuseError(
        f"custody policy {mine} was replaced by {now}: nothing is sealed to its custodians any more."
        if policy.digest in pinned
        else f"the audit log at {log.url} serves custody policy {now}, and {mine} neither is that one nor follows it.",
        advice="Give --policy the file of the policy that the custodians approved last.",
    )


def _proved(log: AuditLog) -> list[str]:
    return apply_entries(CustodyRules(), custody_entries(log)[1], log.url).pinned


def _stated(location: Location) -> list[str]:
    note = location.read_if_there(CHECKPOINT)
    if note is None:
        return []
    try:
        size = int(note.split(b"\n")[1])
    except (IndexError, ValueError):
        raise AuditError(f"{location.describe(CHECKPOINT)} is not a checkpoint.") from None
    entries = (entry for _, bundle in read_bundles(location, size) for entry in bundle)
    return [AuditEvent.decode(entry).facts["policy"] for entry in entries if entry.endswith(_PINNED)]

"""`diffpriv keys rotate`: add and remove recipients by rewrapping shard keys. Data and face records are not touched.

Removing a recipient stops them from opening the files as they are from now on. It can't take back what they may have copied
before: whoever had an old copy of a key file and the old private key can still open that copy. Where that matters, redo the
dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.identity import rewrap_identity_roots
from diffpriv.keys.recipients import Recipient, Unwrapper
from diffpriv.keys.rewriting import KeyFileRewriter, Shard
from diffpriv.keys.store import KeyStore


@dataclass
class RotationReport:
    """What a rotation did to each key file."""

    rewrapped: list[Shard] = field(default_factory=list)
    unchanged: list[Shard] = field(default_factory=list)  # had these recipients already


def rotate(
    store: KeyStore,
    log: AuditLog,
    *,
    now: int,
    add: Sequence[Recipient] = (),
    remove: Sequence[str] = (),
    recipient_key: Unwrapper | None = None,
    dataset: str | None = None,
) -> RotationReport:
    """Rewrap every key file of the store, or of one dataset. Safe to stop and to run again: finished files are passed over.

    Args:
        remove: fingerprints.
        recipient_key: private key of a present recipient; needed to add one.
    Raises: MisuseError, WrongRecipientError, KeyFileError, RecordError, StorageError naming the shard. Files done by then
    stay done.
    """
    if not add and not remove:
        raise MisuseError("nothing to rotate: name a recipient to add or to remove.")
    both = {one.fingerprint for one in add} & set(remove)
    if both:
        raise MisuseError(f"recipient {min(both)} is to be added and removed at once.")
    report = RotationReport()
    rewriter = KeyFileRewriter(store, log, report.rewrapped.append)
    for shard in store.list(dataset):
        file = rewriter.read(*shard)
        present = set(file.sealed_to)
        added = [one for one in add if one.fingerprint not in present]
        removed = sorted(present & set(remove))
        if (not added and not removed) or not file.parts:
            report.unchanged.append(shard)
            continue
        facts = {"added": [one.fingerprint for one in added], "removed": removed}
        rewriter.replace("recipient rotated", file, file.rewrapped(added, removed, recipient_key), facts, now)
    rewriter.flush()
    rewrap_identity_roots(store, add, remove, recipient_key, dataset)
    return report

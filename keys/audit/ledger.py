"""What the log says should be: the state that follows from its entries, in one pass and little memory."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpriv.keys.audit.custody import KINDS as CUSTODY_KINDS
from diffpriv.keys.audit.custody import CustodyRules
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.merkle import leaf_hash
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import AuditError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json

_TRACKED = tuple(
    f'"kind":"{kind}"}}'.encode()
    for kind in (
        "segment integrated",
        "shard committed",
        "recipient rotated",
        "face shredded",
        "supersession acknowledged",
        *sorted(CUSTODY_KINDS),
    )
)


@dataclass
class SegmentState:
    """Where the log took in a segment, and the segment's digest."""

    index: int
    sha256: str


@dataclass
class Supersession:
    """A segment that was put into the log again: a shard that was redone, or a forged one."""

    index: int
    segment: str
    leaf: str  # hex of the entry's leaf hash
    acknowledged_by: list[str] = field(default_factory=list)


@dataclass
class ShardState:
    """The key file and the data of one shard."""

    committed: int  # the entry that committed it
    data_sha256: str
    index: int  # the entry that changed the key file last
    key_file: bytes | None  # SHA-256, None where no keys are kept
    previous: bytes | None = None  # before that entry
    step: str = ""  # "rotation" or "shredding", if that is what the last entry was
    recipients: tuple[str, ...] | None = None  # fingerprints; None where the entries are of before they were stated
    policy: str = ""


@dataclass
class Ledger:
    """What the entries of a log, taken in order, say about segments, shards, policies and cases."""

    segments: dict[str, SegmentState] = field(default_factory=dict)
    shards: dict[tuple[str, str], ShardState] = field(default_factory=dict)
    superseded: dict[int, Supersession] = field(default_factory=dict)
    custody: CustodyRules = field(default_factory=CustodyRules)
    problems: list[str] = field(default_factory=list)

    def take(self, index: int, entry: bytes) -> None:
        """One entry of the log, in order. Entries that change nothing here are not even decoded."""
        if not entry.endswith(_TRACKED):
            if not _decodes(entry):
                self.problems.append(f"entry {index} is not an audit event.")
            return
        try:
            event = AuditEvent.decode(entry, where=f"entry {index}")
            self._apply(index, event, entry)
        except AuditError as error:
            self.problems.append(str(error))
        except (KeyError, TypeError, ValueError):
            self.problems.append(f"entry {index} states malformed facts.")

    def _apply(self, index: int, event: AuditEvent, entry: bytes) -> None:
        facts = event.facts
        if event.kind == "segment integrated":
            if "supersedes" in facts or facts["segment"] in self.segments:
                self.superseded[index] = Supersession(index, facts["segment"], leaf_hash(entry).hex())
            self.segments[facts["segment"]] = SegmentState(index, facts["sha256"])
        elif event.kind == "shard committed":
            shard = (facts["dataset"], facts["shard"])
            recipients = tuple(facts["recipients"]) if "recipients" in facts else None
            self.shards[shard] = ShardState(
                index,
                facts["data_sha256"],
                index,
                _digest(facts["key_file_sha256"]),
                recipients=recipients,
                policy=facts.get("policy") or "",
            )
        elif event.kind in ("recipient rotated", "face shredded"):
            self._key_file_changed(index, event)
        elif event.kind == "supersession acknowledged":
            self._acknowledged(index, facts)
        else:
            problem = self.custody.apply(index, event)
            self.problems += [problem] if problem else []

    def _key_file_changed(self, index: int, event: AuditEvent) -> None:
        facts = event.facts
        state = self.shards.get((facts["dataset"], facts["shard"]))
        if state is None:
            self.problems.append(f"entry {index} changes the key file of {facts['shard']}, which was never committed.")
            return
        old = _digest(facts["old_key_file_sha256"])
        # An interrupted step is announced again from the same old file, so its start may be the digest before the last.
        if old not in (state.key_file, state.previous):
            self.problems.append(f"entry {index} changes a key file of {facts['shard']} that no entry before it names.")
        if event.kind == "recipient rotated" and state.policy and not self._approved(state, facts):
            what = f"entry {index} lets others open {facts['shard']}"
            self.problems.append(f"{what}, which a quorum locks, and no released case approved that.")
        state.step = "rotation" if event.kind == "recipient rotated" else "shredding"
        state.previous, state.key_file, state.index = old, _digest(facts["key_file_sha256"]), index
        if state.recipients is not None and event.kind == "recipient rotated":
            kept = [one for one in state.recipients if one not in facts["removed"]]
            state.recipients = (*kept, *(one for one in facts["added"] if one not in kept))
        state.policy = facts.get("policy") or state.policy

    def _approved(self, state: ShardState, facts: Mapping[str, Any]) -> bool:
        """Whether the quorum approved a rotation of a locked shard; taking recipients out needs nobody's approval."""
        policy = facts.get("policy") or state.policy
        if policy == state.policy and not facts["added"]:
            return True
        case = self.custody.cases.get(str(facts.get("case")))
        decided = case is not None and case.closed == "released" and case.policy == state.policy
        change = case.change if case is not None and decided else None
        return change is not None and change["policy"] == policy and set(facts["added"]) <= set(change["add"])

    def _acknowledged(self, index: int, facts: Mapping[str, Any]) -> None:
        one = self.superseded.get(int(facts["entry"]))
        if one is None or one.leaf != facts["leaf"]:
            self.problems.append(f"entry {index} acknowledges a supersession that is not there.")
            return
        signed = facts["acknowledgement"]
        present = self.custody.pinned[-1:]  # whose custodians may say so now; without one, those of whatever is known
        known = [policy for digest, policy in self.custody.policies.items() if digest in (present or [digest])]
        if known and not any(acknowledgement_signed(policy, one, facts["custodian"], signed) for policy in known):
            self.problems.append(f"entry {index}: custodian {facts['custodian'][:8]}… did not sign the acknowledgement.")
            return
        one.acknowledged_by.append(facts["custodian"])


_ACKNOWLEDGEMENT = "diffpriv supersession acknowledgement"


def acknowledge(one: Supersession, custodian: CustodianKey, now: int) -> AuditEvent:
    """A custodian says that a segment was rightly put into the log again, after looking why."""
    by = custodian.custodian.fingerprint
    signature = custodian.sign(_ACKNOWLEDGEMENT, _acknowledged_bytes(one, by, now))
    signed = {"decided_at": now, "signature": base64.b64encode(signature).decode()}
    facts = {"entry": one.index, "leaf": one.leaf, "custodian": by, "acknowledgement": signed}
    return AuditEvent("supersession acknowledged", now, facts)


def acknowledgement_signed(policy: CustodyPolicy, one: Supersession, by: str, signed: Mapping[str, Any]) -> bool:
    """Whether a custodian of `policy` signed that the policy was replaced."""
    person = policy.custodian(by)
    message = _acknowledged_bytes(one, by, signed["decided_at"])
    return person is not None and person.signed(_ACKNOWLEDGEMENT, message, base64.b64decode(signed["signature"]))


def _acknowledged_bytes(one: Supersession, by: str, at: int) -> bytes:
    return canonical_json({"entry": one.index, "leaf": one.leaf, "custodian": by, "decided_at": at})


def _digest(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _decodes(entry: bytes) -> bool:
    try:
        return isinstance(parse_json(entry), dict)
    except ValueError:
        return False

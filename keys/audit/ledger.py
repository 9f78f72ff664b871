"""What the log says should be: the state that follows from its entries, in one pass and little memory."""

import json
from dataclasses import dataclass, field

from keys.audit.events import AuditEvent
from keys.errors import AuditError

_TRACKED = tuple(
    f'"kind":"{kind}"}}'.encode()
    for kind in (
        "segment integrated",
        "shard committed",
        "recipient rotated",
        "face shredded",
        "recovery requested",
        "recovery approved",
        "recovery denied",
        "recovery expired",
        "recovery released",
    )
)


@dataclass
class SegmentState:
    index: int
    sha256: str


@dataclass
class ShardState:
    """The key file and the data of one shard."""

    committed: int  # the entry that committed it
    data_sha256: str
    index: int  # the entry that changed the key file last
    key_file: bytes | None  # SHA-256, None where no keys are kept
    previous: bytes | None = None  # before that entry
    step: str = ""  # "rotation" or "shredding", if that is what the last entry was


@dataclass
class CaseState:
    quorum: int
    approvals: set[str] = field(default_factory=set)
    closed: str = ""


@dataclass
class Ledger:
    segments: dict[str, SegmentState] = field(default_factory=dict)
    shards: dict[tuple[str, str], ShardState] = field(default_factory=dict)
    cases: dict[str, CaseState] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def take(self, index: int, entry: bytes) -> None:
        """One entry of the log, in order. Entries that change nothing here are not even decoded."""
        if not entry.endswith(_TRACKED):
            if not _decodes(entry):
                self.problems.append(f"entry {index} is not an audit event.")
            return
        try:
            event = AuditEvent.decode(entry, where=f"entry {index}")
            self._apply(index, event)
        except AuditError as error:
            self.problems.append(str(error))
        except (KeyError, TypeError, ValueError):
            self.problems.append(f"entry {index} states malformed facts.")

    def _apply(self, index: int, event: AuditEvent) -> None:
        facts = event.facts
        if event.kind == "segment integrated":
            self.segments[facts["segment"]] = SegmentState(index, facts["sha256"])
        elif event.kind == "shard committed":
            shard = (facts["dataset"], facts["shard"])
            self.shards[shard] = ShardState(index, facts["data_sha256"], index, _digest(facts["key_file_sha256"]))
        elif event.kind in ("recipient rotated", "face shredded"):
            self._key_file_changed(index, event)
        else:
            self._recovery(index, event)

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
        state.step = "rotation" if event.kind == "recipient rotated" else "shredding"
        state.previous, state.key_file, state.index = old, _digest(facts["key_file_sha256"]), index

    def _recovery(self, index: int, event: AuditEvent) -> None:
        facts = event.facts
        if event.kind == "recovery requested":
            self.cases.setdefault(facts["case"], CaseState(int(facts.get("quorum", 1))))
            return
        case = self.cases.get(facts["case"])
        if case is None:
            self.problems.append(f"entry {index}: {event.kind}, but the case was never requested.")
        elif case.closed:
            self.problems.append(f"entry {index}: {event.kind}, but the case was {case.closed} before.")
        elif event.kind == "recovery approved":
            case.approvals.add(facts["custodian"])
        else:
            case.closed = event.kind.removeprefix("recovery ")
            if case.closed == "released" and len(case.approvals) < case.quorum:
                self.problems.append(f"entry {index}: released with {len(case.approvals)} of {case.quorum} approvals.")


def _digest(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _decodes(entry: bytes) -> bool:
    try:
        return isinstance(json.loads(entry), dict)
    except ValueError:
        return False

"""The custody rules as one state machine over log entries. A recovery and `audit verify` both ask it, so they can't differ.

A case:     requested -> approved -> released [-> opened]        requested | approved -> denied | expired
A policy:   the first one that the log pins is its root; each later one names its predecessor, and a case that the
            predecessor's quorum, and no earlier one's, approved for this very change was released before it.

1. A request counts if a person of the pinned policy signed it, under that policy's quorum, and only once.
2. An approval counts if a custodian of the policy signed it for this case, before it expired and while it was open; once per
   custodian, and never the requester's own.
3. A denial closes the case if a custodian signed it.
4. A release is right after `quorum` approvals, before the case expires, and once; an opening after its release, and once.
   A release that is not right closes the case all the same: nobody knows what was opened.
5. A policy that was replaced decides nothing more, but to move late shards to the present one.
6. Nothing is dated before an earlier entry of these kinds: a clock that was set back decides nothing.
What does not count is a problem, and changes nothing; what is dated back is a problem, whatever it says.
No clock, file or network inside.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpriv.keys.audit.events import AuditEvent, from_iso, to_iso
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.requests import decision_signed, request_signed

KINDS = frozenset(
    {
        "policy pinned",
        "recovery requested",
        "recovery approved",
        "recovery denied",
        "recovery expired",
        "recovery released",
        "recovery opened",
    }
)


@dataclass
class CaseState:
    """What the log's entries make of a case. `closed`: "", denied, expired or released."""

    policy: str
    quorum: int
    requester: str
    expires_at: int
    change: Mapping[str, Any] | None = None
    approvals: dict[str, str] = field(default_factory=dict)  # custodian -> SHA-256 of the shares that the approval carried
    closed: str = ""
    denied_by: str = ""
    released_at: int | None = None
    released_index: int = -1
    opened: bool = False

    def state(self, now: int) -> str:
        if self.closed:
            return self.closed
        if now >= self.expires_at:
            return "expired"
        return "approved" if len(self.approvals) >= self.quorum else "requested"


class CustodyRules:
    """Fed with a log's entries in order; says what each case has come to, and what was against the rules.

    Args:
        trusted: policies that the caller holds. With them, a log that pins none of them is a problem, and so are cases under
            others.
    """

    def __init__(self, trusted: Iterable[CustodyPolicy] = ()) -> None:
        self.trusted = {policy.digest: policy for policy in trusted}
        self.policies = dict(self.trusted)
        self.pinned: list[str] = []
        self.cases: dict[str, CaseState] = {}
        self.unchecked: set[str] = set()  # policies of cases whose signatures could not be checked
        self._latest = 0

    def apply(self, index: int, event: AuditEvent) -> str:
        """Take one entry of KINDS; what is wrong with it, or ""."""
        try:
            if event.kind == "policy pinned":
                problem = self._pin(event.facts)
            elif event.kind == "recovery requested":
                problem = self._request(event.facts)
            else:
                problem = self._step(index, event)
        except (KeyError, TypeError, ValueError, DiffPrivError):
            return f"entry {index} states malformed facts."
        if event.at < self._latest and not problem:
            problem = f"it is dated {to_iso(event.at)}, after an entry of {to_iso(self._latest)}: a clock was set back."
        self._latest = max(self._latest, event.at)
        return f"entry {index}, {event.kind}: {problem}" if problem else ""

    def finish(self) -> list[str]:
        """What is wrong with the whole, once every entry was taken."""
        if self.trusted and self.pinned and not set(self.pinned) & set(self.trusted):
            held = ", ".join(f"{one[:12]}…" for one in self.pinned)
            return [f"the log pins custody policy {held}, and none that was given: it serves other custodians."]
        return []

    def _pin(self, facts: Mapping[str, Any]) -> str:
        policy = CustodyPolicy.from_public_form(facts["form"])
        if policy.digest != facts["policy"]:
            return "the policy does not have the digest it is pinned under."
        if self.pinned:
            case = self.cases.get(str(facts.get("case")))
            change = case.change if case is not None else None
            if policy.previous != self.pinned[-1]:
                return f"policy {policy.digest[:12]}… does not follow {self.pinned[-1][:12]}…, which the log pinned before."
            decided = case is not None and case.closed == "released" and case.policy == self.pinned[-1]
            if not decided or not change or change["policy"] != policy.digest:
                return f"policy {policy.digest[:12]}… was approved by no quorum of the one before it."
        self.pinned.append(policy.digest)
        self.policies.setdefault(policy.digest, policy)
        return ""

    def _request(self, facts: Mapping[str, Any]) -> str:
        if facts["case"] in self.cases:
            return "the case was requested before."
        policy = self.policies.get(facts["policy"])
        quorum = int(facts["quorum"])
        if self.pinned and facts["policy"] not in self.pinned:
            return f"the case is under policy {facts['policy'][:12]}…, which the log does not pin."
        if self.trusted and not self.pinned and facts["policy"] not in self.trusted:
            return f"the case is under policy {facts['policy'][:12]}…, none of those given."
        if self._replaced(facts["policy"], facts.get("change")):
            return f"the case is under policy {facts['policy'][:12]}…, which was replaced before."
        if policy is None:
            self.unchecked.add(facts["policy"])
        elif "request" in facts and not request_signed(
            policy, facts["case"], facts["requester"], base64.b64decode(facts["request"]["signature"])
        ):
            return "no person of the custody policy signed it."
        elif policy.quorum != quorum or policy.person(facts["requester"]) is None:
            return "its quorum or requester is not of the custody policy."
        self.cases[facts["case"]] = CaseState(
            facts["policy"], quorum, facts["requester"], from_iso(facts["expires_at"]), facts.get("change")
        )
        return ""

    def _replaced(self, policy: str, change: Mapping[str, Any] | None) -> bool:
        """Whether a policy decides no more. A replaced one still moves late shards to the present one."""
        return policy in self.pinned[:-1] and (not change or change["policy"] != self.pinned[-1])

    def _step(self, index: int, event: AuditEvent) -> str:
        facts = event.facts
        case = self.cases.get(facts["case"])
        if case is None:
            return "the case was never requested."
        if event.kind == "recovery opened":
            if case.closed != "released" or case.opened:
                return f"the case was {'opened before' if case.opened else 'not released'}."
            case.opened = True
            return ""
        if case.closed:
            return f"the case was {case.closed} before."
        late = event.at >= case.expires_at
        if event.kind == "recovery expired":
            case.closed = "expired" if late else ""
            return "" if late else "the case was still open."
        if late:
            return f"the case expired at {to_iso(case.expires_at)}."
        return self._decide(case, event) if event.kind != "recovery released" else self._release(case, index, event.at)

    def _decide(self, case: CaseState, event: AuditEvent) -> str:
        facts, by = event.facts, event.facts["custodian"]
        wanted, field_name = ("approve", "approval") if event.kind == "recovery approved" else ("deny", "denial")
        policy = self.policies.get(case.policy)
        if policy is not None and not decision_signed(policy, facts["case"], by, wanted, facts[field_name]):
            return f"custodian {by[:8]}… of the policy did not sign it."
        if wanted == "deny":
            case.closed, case.denied_by = "denied", by
        elif self._replaced(case.policy, case.change):
            return f"policy {case.policy[:12]}… was replaced before."
        elif by == case.requester:
            return "it is the requester's own."
        elif by in case.approvals:
            return f"custodian {by[:8]}… had approved before."
        else:
            case.approvals[by] = facts[field_name].get("shares_sha256", "")
        return ""

    def _release(self, case: CaseState, index: int, at: int) -> str:
        enough, replaced = len(case.approvals) >= case.quorum, self._replaced(case.policy, case.change)
        case.closed, case.released_at, case.released_index = "released", at, index  # rightly or not: it is used up
        if replaced:
            return f"policy {case.policy[:12]}… was replaced before."
        return "" if enough else f"released with {len(case.approvals)} of {case.quorum} approvals."


def policy_pinned(at: int, policy: CustodyPolicy, case: str = "") -> AuditEvent:
    """The entry that binds a log to a policy. `case`: the released one by which the policy before it approved this one."""
    facts: dict[str, Any] = {"policy": policy.digest, "form": policy.public_form()}
    return AuditEvent("policy pinned", at, facts | ({"case": case} if case else {}))

"""A recovery, from asking to release, over the audit log.

The log is the state: a case is read from its entries, each proved against the signed head, by the rules of
keys/audit/custody.py that `audit verify` follows too; so each step can happen on another machine and on another day.
No clock, file or network inside: the caller injects `now` (Unix seconds), an AuditLog, and the mailed files as objects.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from diffpriv.keys.audit.custody import CustodyRules, policy_pinned
from diffpriv.keys.audit.events import AuditEvent, to_iso
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.pinned import apply_entries, custody_entries
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import RecoveryRefusedError, WitnessError
from diffpriv.keys.requests import Decision, FaceRef, RecoveryRequest

# Two machines' clocks may differ this much before a decision counts as dated in the future.
CLOCK_SKEW = 300


@dataclass(frozen=True)
class CaseStatus:
    """What the log says about a case. `state`: unknown, requested, approved, denied, expired or released."""

    case: str
    state: str
    quorum: int
    approved_by: tuple[str, ...] = ()  # fingerprints
    denied_by: str = ""
    released_at: int | None = None
    released_index: int = -1
    opened: bool = False
    shares: Mapping[str, str] = field(default_factory=dict)  # custodian -> SHA-256 of the shares in the logged approval

    @property
    def missing(self) -> int:
        return max(0, self.quorum - len(self.approved_by))


@dataclass(frozen=True)
class Release:
    """The right to open the faces of one case, once. Only RecoveryCase makes one, after logging it."""

    case: str
    faces: tuple[FaceRef, ...]
    released_at: int
    log_index: int
    approved_by: tuple[str, ...] = field(default=())


class RecoveryCase:
    """A request to recover faces, from asking to release.

    requested -> approved -> released [-> opened]        requested | approved -> denied | expired
    1. An approval names the digest of this exact request; any change to the request voids it.
    2. Approvals count once per custodian of the policy, and the requester's own never counts.
    3. Nothing is unwrapped before `quorum` approvals are in the audit log; their signatures are checked again from the log.
    4. `now` is given by the caller and never before the log's newest entry; a case is expired at `expires_at`, not after it.
    5. A released case never releases again; a denied or expired one never releases.
    6. Every transition is in the log before its effect, and so is every refusal, with a reason code.
    7. The log serves one policy at a time: the one that it pinned last, by its first case or by a case of the one before. Under
       an earlier one only cases that move its shards to the present one are heard.
    8. Where the policy names witnesses, `witness_quorum` of them have cosigned a head with the release before anything opens.

    Args:
        request: the request exactly as it was mailed.
        policy: the custody policy the caller trusts; the request must have been made under the same one.
        log: where transitions are written and read.
    """

    def __init__(self, request: RecoveryRequest, policy: CustodyPolicy, log: AuditLog) -> None:
        self.request, self.policy, self._log = request, policy, log
        self.case = request.case
        self._read: tuple[bytes, list[tuple[int, bytes]]] | None = None  # (root, entries of this case and of policies)

    def status(self, now: int) -> CaseStatus:
        """Read the case from the log."""
        case = self._rules().cases.get(self.case)
        if case is None:
            return CaseStatus(self.case, "unknown", self.policy.quorum)
        return CaseStatus(
            self.case,
            case.state(now),
            self.policy.quorum,
            tuple(case.approvals),
            case.denied_by,
            case.released_at,
            case.released_index,
            case.opened,
            dict(case.approvals),
        )

    def _rules(self) -> CustodyRules:
        """The rules, fed with everything the log says of this case, of policies, and of the cases that changed those."""
        if self._read is None or self._read[0] != self._log.checkpoint().root:
            self._read = custody_entries(self._log, self.case)
        return apply_entries(CustodyRules([self.policy]), self._read[1], self._log.url)

    def submit(self, now: int) -> CaseStatus:
        """Open the case. Raises: RecoveryRefusedError for a request that is malformed, expired, or in the log already."""
        with self._log.serialised():
            self._check_request("request", now)
            if self.status(now).state != "unknown":
                self._refuse("request", "replayed", "this very request was submitted before.", now, self.request.requester)
            if now >= self.request.expires_at:
                self._refuse(
                    "request", "expired", f"it expired at {to_iso(self.request.expires_at)}.", now, self.request.requester
                )
            facts: dict[str, Any] = {
                "case": self.case,
                "requester": self.request.requester,
                "quorum": self.policy.quorum,
                "policy": self.policy.digest,
                "faces": len(self.request.faces),
                "expires_at": to_iso(self.request.expires_at),
            }
            if self.request.version > 1:
                facts |= {"request": {"signature": base64.b64encode(self.request.signature).decode()}}
                facts |= {"shards": len(self.request.locks)}
            if self.request.change is not None:
                facts |= {"change": self.request.change.logged()}
            pin = [] if not self.policy.locks or self._rules().pinned else [policy_pinned(now, self.policy)]
            self._log.append([*pin, AuditEvent("recovery requested", now, facts)])
            return self.status(now)

    def approve(self, decision: Decision, now: int) -> CaseStatus:
        """Count one custodian's approval. Raises: RecoveryRefusedError, after logging the refusal."""
        return self._decide(decision, "approve", now)

    def deny(self, decision: Decision, now: int) -> CaseStatus:
        """Close the case; one custodian's no is enough. Raises: RecoveryRefusedError, after logging the refusal."""
        return self._decide(decision, "deny", now)

    def release(self, now: int) -> Release:
        """Log the release and hand over the right to open the faces, once. Raises: RecoveryRefusedError, logged."""
        with self._log.serialised():
            self._check_request("release", now)
            status = self._check_open("release", now, self.request.requester)
            if status.state != "approved":
                message = f"it has {len(status.approved_by)} of {status.quorum} approvals."
                self._refuse("release", "too-few-approvals", message, now, self.request.requester)
            facts = {"case": self.case, "faces": len(self.request.faces), "approved_by": list(status.approved_by)}
            appended = self._log.append([AuditEvent("recovery released", now, facts)])
            return Release(self.case, self.request.faces, now, appended.first, status.approved_by)

    def released(self, now: int) -> Release | None:
        """The release that waits for witnesses, or None if there is none to resume."""
        status = self.status(now)
        if status.state != "released" or status.opened or not self.policy.witness_quorum or status.released_at is None:
            return None
        return Release(self.case, self.request.faces, status.released_at, status.released_index, status.approved_by)

    def check_witnessed(self, release: Release, now: int) -> None:
        """Rule 8, and log that the case is opened now. Raises: WitnessError naming how many cosignatures are missing."""
        wanted = self.policy.witness_quorum
        if not wanted:
            return
        with self._log.serialised():
            if self.status(now).opened:
                self._refuse("open", "opened", "it was opened before.", now, self.request.requester)
            head = self._log.checkpoint(self.policy.witness_verifiers)
            have = len(head.witnesses) if head.size > release.log_index else 0
            if have < wanted:
                raise WitnessError(
                    f"recovery {self.case[:12]}… is released in entry {release.log_index}; {have} of {wanted} witnesses have "
                    "cosigned a head that holds it.",
                    advice='Have witnesses cosign ("diffpriv audit witness"), then run this again.',
                )
            self._log.append([AuditEvent("recovery opened", now, {"case": self.case, "witnesses": have})])

    def fail(self, reason: str, now: int) -> None:
        """Log that the faces could not be opened. `reason` is a short code or class name, never a sample's name."""
        self._log.append([AuditEvent("recovery failed", now, {"case": self.case, "reason": reason})])

    def summary(self, now: int) -> dict[str, Any]:
        """For `recover show`: the case with the names that the policy knows."""
        status = self.status(now)

        def named(fingerprint: str) -> str:
            person = self.policy.person(fingerprint)
            return f"{person.name} ({fingerprint[:8]}…)" if person else f"{fingerprint[:8]}…"

        return {
            "case": self.case,
            "state": status.state,
            "requester": named(self.request.requester),
            "purpose": self.request.purpose,
            "faces": [face._asdict() for face in self.request.faces],
            "requested_at": to_iso(self.request.requested_at),
            "expires_at": to_iso(self.request.expires_at),
            "quorum": status.quorum,
            "approved_by": [named(one) for one in status.approved_by],
            "missing_approvals": status.missing,
            "denied_by": named(status.denied_by) if status.denied_by else None,
            "released_at": None if status.released_at is None else to_iso(status.released_at),
        }

    # --- the rules, in the order of the docstring --------------------------------------------------------------------

    def _decide(self, decision: Decision, wanted: str, now: int) -> CaseStatus:
        by = decision.custodian
        with self._log.serialised():
            self._check_request(wanted, now)
            if decision.case != self.case:  # rule 1
                self._refuse(
                    wanted, "other-request", "the decision is about another request, or this one was altered.", now, by
                )
            if decision.decision != wanted:
                self._refuse(wanted, "other-decision", f"the file says {decision.decision!r}.", now, by)
            if self.policy.custodian(by) is None:  # rule 2
                self._refuse(wanted, "not-a-custodian", f"{by[:8]}… is not a custodian of this policy.", now, by)
            if not decision.signed_by(self.policy):
                self._refuse(wanted, "bad-signature", "the custodian's signature does not fit the decision.", now, by)
            if wanted == "approve" and by == self.request.requester:
                self._refuse(wanted, "own-request", "nobody approves a request of their own.", now, by)
            if not self.request.requested_at <= decision.decided_at <= now + CLOCK_SKEW:
                self._refuse(wanted, "misdated", "the decision is dated before the request or in the future.", now, by)
            status = self._check_open(wanted, now, by)  # rules 4 and 5
            if wanted == "approve" and by in status.approved_by:
                self._refuse(wanted, "duplicate", "this custodian's approval is in the log already.", now, by)
            signed = decision.logged()
            if wanted == "approve" and len(decision.shares) != len(self.request.locks):
                self._refuse(wanted, "no-shares", "the approval lacks shares of shards that the request names.", now, by)
            if wanted == "approve":
                event = AuditEvent("recovery approved", now, {"case": self.case, "custodian": by, "approval": signed})
            else:
                event = AuditEvent("recovery denied", now, {"case": self.case, "custodian": by, "denial": signed})
            self._log.append([event])
            return self.status(now)

    def _check_request(self, step: str, now: int) -> None:
        by, newest = self.request.requester, self._log.newest()
        if now < newest:  # rule 4; an entry dated back can't be logged
            raise RecoveryRefusedError(
                f"recovery {self.case[:12]}…, {step}: the clock says {to_iso(now)}, and the log's newest entry is of "
                f"{to_iso(newest)}.",
                reason="clock",
                advice="Set this machine's clock right.",
            )
        if (self.request.policy, self.request.quorum) != (self.policy.digest, self.policy.quorum):
            self._refuse(step, "other-policy", "the request was made under another custody policy.", now, by)
        if not self.request.signed_by(self.policy):
            self._refuse(
                step, "bad-request", "the request is not signed by a person of the policy, or it was altered.", now, by
            )
        pinned = self._rules().pinned  # rule 7
        change = self.request.change
        moves_on = change is not None and self.policy.digest in pinned and change.policy == pinned[-1]
        if pinned and pinned[-1] != self.policy.digest and not moves_on:
            message = f"the log serves custody policy {pinned[-1][:12]}…, and this one is {self.policy.digest[:12]}…."
            self._refuse(step, "other-policy", message, now, by)

    def _check_open(self, step: str, now: int, by: str) -> CaseStatus:
        status = self.status(now)
        if status.state == "unknown":
            self._refuse(step, "not-requested", "no such request is in the audit log, or it was altered since.", now, by)
        if status.state == "expired":
            if self._rules().cases[self.case].closed != "expired":
                self._log.append([AuditEvent("recovery expired", now, {"case": self.case})])
            self._refuse(step, "expired", f"it expired at {to_iso(self.request.expires_at)}.", now, by)
        if status.state in ("denied", "released"):
            self._refuse(step, status.state, f"it was {status.state} before.", now, by)
        return status

    def _refuse(self, step: str, reason: str, message: str, now: int, by: str) -> NoReturn:
        by = by if self.policy.person(by) else "unknown"  # an unchecked file's text stays out of the log
        self._log.append([AuditEvent("recovery refused", now, {"case": self.case, "step": step, "reason": reason, "by": by})])
        raise RecoveryRefusedError(f"recovery {self.case[:12]}…, {step}: {message}", reason=reason)

"""Whatever people and forgers do in whatever order, a recovery is released only as its rules say, and all of it is logged."""

import uuid
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import RecoveryRefusedError
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.requests import Decision, FaceRef, RecoveryRequest
from tests.keys.helpers import NOW

HOUR = 3600
PEOPLE = [CustodianKey.create(f"custodian {number}") for number in range(4)]
REQUESTER = CustodianKey.create("requester")
STRANGER = CustodianKey.create("stranger")
LOG_KEY = NoteKey.create("log.test/property")
ANYBODY = [*PEOPLE, REQUESTER, STRANGER]
AUTHORS = st.integers(0, len(ANYBODY) - 1)  # by number: keys refuse to be compared, and hypothesis compares


class Recovery(RuleBasedStateMachine):
    """The model below knows the rules in ten lines; the system has to agree after every step."""

    decisions = Bundle("decisions")

    @initialize(quorum=st.integers(1, 3), asks=st.sampled_from([0, 4]), life=st.integers(1, 9), early=st.booleans())
    def start(self, quorum, asks, life, early):
        self.log = AuditLog(f"memory://audit-{uuid.uuid4().hex}", LOG_KEY)
        self.policy = CustodyPolicy(quorum, tuple(key.custodian for key in PEOPLE), (REQUESTER.custodian,))
        self.now = NOW
        faces = [FaceRef("faces", "shard-000.tar", "img", 0, "ab" * 32)]
        self.request, self.other = (
            RecoveryRequest.make(faces, purpose, ANYBODY[asks], self.policy, now=NOW, expires_at=NOW + life * HOUR)
            for purpose in "ab"
        )
        self.case = RecoveryCase(self.request, self.policy, self.log)
        self.submitted = False
        self.valid: set[str] = set()
        self.closed = ""
        self.releases = self.refusals = 0
        self.reasons: set[str] = set()
        if early:
            self.submit()

    # --- the model ---------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        return self.submitted and not self.closed and self.now < self.request.expires_at

    def attempt(self, step, allowed):
        """The system does the step exactly if the model allows it; a refusal is logged."""
        try:
            step()
            done = True
        except RecoveryRefusedError as error:
            done = False
            self.refusals += 1
            self.reasons.add(error.reason)
        assert done == allowed
        if not done and self.submitted and not self.closed and self.now >= self.request.expires_at:
            self.noted_expiry()
        return done

    def noted_expiry(self):
        if any(self.log.events(self.request.case, '"kind":"recovery expired"')):
            self.closed = "expired"

    # --- what people do ----------------------------------------------------------------------------------------------

    @rule()
    def submit(self):
        if self.attempt(lambda: self.case.submit(self.now), not self.submitted and self.now < self.request.expires_at):
            self.submitted = True

    @rule(
        target=decisions,
        by=AUTHORS,
        kind=st.sampled_from(["approve", "approve", "deny"]),
        shift=st.sampled_from([0, 0, 0, -9 * HOUR, HOUR]),
    )
    def write_decision(self, by, kind, shift):
        return by, Decision.make(self.request, ANYBODY[by], kind, now=self.now + shift)

    @rule(target=decisions, by=AUTHORS)
    def write_decision_on_another_request(self, by):
        return by, Decision.make(self.other, ANYBODY[by], "approve", now=self.now)

    @rule(
        target=decisions,
        written=consumes(decisions),
        field=st.sampled_from(["case", "custodian", "decision", "decided_at", "signature"]),
    )
    def alter_decision(self, written, field):
        by, decision = written
        value = {
            "case": self.request.case,
            "custodian": PEOPLE[1].custodian.fingerprint,
            "decision": "approve",
            "decided_at": self.now,
            "signature": bytes(64),
        }[field]
        return by, replace(decision, **{field: value})

    @rule(written=decisions, step=st.sampled_from(["approve", "deny"]))
    def hand_in(self, written, step):
        by, decision = written
        genuine = decision.signed_by(self.policy) and decision.custodian == ANYBODY[by].custodian.fingerprint
        allowed = (
            self.open()
            and genuine
            and by < len(PEOPLE)
            and decision.case == self.request.case
            and decision.decision == step
            and NOW <= decision.decided_at <= self.now + 300
        )
        if step == "approve":
            allowed = allowed and decision.custodian != self.request.requester and decision.custodian not in self.valid
            if self.attempt(lambda: self.case.approve(decision, self.now), allowed):
                self.valid.add(decision.custodian)
        elif self.attempt(lambda: self.case.deny(decision, self.now), allowed):
            self.closed = "denied"

    @rule()
    def release(self):
        allowed = self.open() and len(self.valid) >= self.policy.quorum
        if self.attempt(lambda: self.case.release(self.now), allowed):
            self.closed = "released"
            self.releases += 1

    @rule()
    def release_an_altered_request(self):
        altered = RecoveryCase(replace(self.request, expires_at=self.request.expires_at + HOUR), self.policy, self.log)
        self.attempt(lambda: altered.release(self.now), False)

    @rule()
    def release_under_an_easier_policy(self):
        easier = CustodyPolicy(1, (STRANGER.custodian,), (REQUESTER.custodian,))
        self.attempt(lambda: RecoveryCase(self.request, easier, self.log).release(self.now), False)

    @rule(by=st.integers(0, len(PEOPLE)))
    def approve_at_once(self, by):
        """What honest people do: without this rule, few random runs would ever reach a quorum."""
        self.hand_in((by, Decision.make(self.request, ANYBODY[by], "approve", now=self.now)), "approve")

    @rule(hours=st.integers(1, 2))
    def wait(self, hours):
        self.now += hours * HOUR

    # --- what must always hold ---------------------------------------------------------------------------------------

    @invariant()
    def the_log_tells_the_same_story(self):
        status = self.case.status(self.now)
        assert set(status.approved_by) == self.valid
        assert self.request.requester not in status.approved_by
        assert self.releases <= 1
        logged = [event.kind for _, event in self.log.events()]
        assert logged.count("recovery released") == self.releases
        assert logged.count("recovery approved") == len(self.valid)
        assert logged.count("recovery refused") == self.refusals
        if self.releases:
            assert len(self.valid) >= self.policy.quorum
            assert status.state == "released"

    def teardown(self):
        if hasattr(self, "log"):
            assert verify_log(self.log).problems == []


class TestRecovery(Recovery.TestCase):
    settings = settings(deadline=None, max_examples=25, stateful_step_count=30)


@pytest.mark.slow
class TestRecoveryAtLength(Recovery.TestCase):
    settings = settings(deadline=None, max_examples=80, stateful_step_count=30)

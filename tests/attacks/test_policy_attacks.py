"""What a requester can try who wants a policy signed that nobody would sign who saw it, and what custodians who left can."""

from dataclasses import replace

import pytest

from diffpriv.jobs import recoveries
from diffpriv.jobs.signing import changes_shown
from diffpriv.keys.audit.custody import policy_pinned
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.ledger import Ledger, acknowledge
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.changes import Change
from diffpriv.keys.custodians import Custodian, CustodianKey, CustodyPolicy
from diffpriv.keys.errors import DiffPrivError, MisuseError
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.requests import Decision, RecoveryRequest
from diffpriv.keys.resealing import name_locks
from tests.attacks.test_quorum_attacks import CUSTODIANS, HOUR, POLICY, RECIPIENT, REQUESTER, SHARDS, World
from tests.keys.helpers import NOW
from tests.keys.test_resealing import NEW, NEW_LOGGED, NEW_PEOPLE, case_for, move

MALLORY = CustodianKey.create("custodian 1")  # a name that the policy has, and a key that it has not
WANTED = CustodyPolicy(1, (CUSTODIANS[0].custodian, MALLORY.custodian), (REQUESTER.custodian,), previous=POLICY.digest)
HARMLESS = CustodyPolicy(2, POLICY.custodians, POLICY.requesters, previous=POLICY.digest)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def asked(world, change: Change) -> RecoveryRequest:
    locks = name_locks(world.store, POLICY, change)
    run_key = RecipientKey.generate().recipient
    options = {"now": NOW, "expires_at": NOW + HOUR, "run_key": run_key, "locks": locks, "change": change}
    return RecoveryRequest.make((), "routine maintenance", REQUESTER, POLICY, **options)


def test_the_custodian_sees_who_comes_who_goes_and_how_few_would_open(world):
    request = RecoveryRequest.from_json(asked(world, Change(WANTED.digest, ("ab" * 16,), (), WANTED)).to_json())
    shown = dict(changes_shown(recoveries.describe(request, POLICY)))
    assert shown["approvals needed"] == "2 of 3 -> 1 of 2"
    assert MALLORY.custodian.fingerprint in shown["custodian comes"]
    assert CUSTODIANS[2].custodian.fingerprint in shown["custodian goes"]
    assert shown["recipient comes"] == "ab" * 16
    assert shown["new policy"] == WANTED.digest


def test_a_new_key_under_a_custodians_name_is_pointed_out(world):
    request = asked(world, Change(WANTED.digest, to=WANTED))
    shown = dict(changes_shown(recoveries.describe(request, POLICY)))
    assert "custodian 1: was" in shown["ANOTHER KEY under a name known before"]


def test_shares_that_would_go_to_another_sealing_key_are_pointed_out(world):
    ada, thief = CUSTODIANS[0].custodian, RecipientKey.generate().recipient
    moved = replace(POLICY, custodians=(Custodian(ada.name, ada.public, thief), *POLICY.custodians[1:]), previous=POLICY.digest)
    (one,) = recoveries.changes(asked(world, Change(moved.digest, to=moved)), POLICY)
    assert (one.kind, ada.fingerprint in one.text) == ("custodian_sealing", True)


def test_a_request_that_shows_one_policy_and_names_another_is_refused(world):
    with pytest.raises(MisuseError, match="made to mislead"):
        Change(WANTED.digest, to=HARMLESS)
    body = asked(world, Change(WANTED.digest, to=WANTED)).to_json()
    body["change"]["to"] = HARMLESS.to_json()
    with pytest.raises(DiffPrivError, match="is not a recovery request"):
        RecoveryRequest.from_json(body)


def test_a_policy_of_which_only_the_digest_is_here_is_not_approved(world):
    request = asked(world, Change(WANTED.digest))
    with pytest.raises(MisuseError, match="can't be shown"):
        recoveries.decide(request, CUSTODIANS[0], "approve", now=NOW, policy=POLICY)
    with pytest.raises(MisuseError, match="the file given is"):
        recoveries.decide(request, CUSTODIANS[0], "approve", now=NOW, policy=POLICY, new_policy=HARMLESS)
    assert recoveries.decide(request, CUSTODIANS[0], "approve", now=NOW, policy=POLICY, new_policy=WANTED).shares
    assert recoveries.decide(request, CUSTODIANS[1], "deny", now=NOW, policy=POLICY).decision == "deny"


def test_names_of_the_new_policys_people_do_not_reach_the_log(world):
    request = asked(world, Change(WANTED.digest, to=WANTED))
    RecoveryCase(request, POLICY, world.log).submit(NOW)
    assert all(b"custodian 1" not in entry for _, entry in world.log.entries())


# --- custodians who left ------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(world) -> World:
    """NEW took POLICY's place; POLICY's people are gone."""
    change = Change(NEW.digest, to=NEW)
    move(world, case_for(world, change), change)
    return world


def forced_case(world, change, at):
    """A quorum of the replaced policy, and the log's key: what the program refuses is written by hand."""
    locks = name_locks(world.store, POLICY, change)
    options = {"now": at, "expires_at": at + HOUR, "run_key": RecipientKey.generate().recipient, "locks": locks}
    request = RecoveryRequest.make((), "back", REQUESTER, POLICY, change=change, **options)
    signature = request.to_json()["signature"]
    asked = {"case": request.case, "requester": request.requester, "quorum": 2, "policy": POLICY.digest, "faces": 0}
    asked |= {"expires_at": "2030-01-01T00:00:00Z", "request": {"signature": signature}, "change": change.logged()}
    events = [AuditEvent("recovery requested", at, asked)]
    for key in CUSTODIANS[:2]:
        made = Decision.make(request, key, "approve", now=at)
        facts = {"case": request.case, "custodian": made.custodian, "approval": made.logged()}
        events.append(AuditEvent("recovery approved", at, facts))
    events.append(AuditEvent("recovery released", at, {"case": request.case, "faces": 0}))
    world.log.append(events)
    return request.case


def test_custodians_who_left_put_no_policy_in_the_place_of_their_successors(moved):
    own = CustodyPolicy(1, (CUSTODIANS[0].custodian,), (REQUESTER.custodian,), previous=NEW.digest)
    case = forced_case(moved, Change(own.digest), NEW_LOGGED + 1)
    moved.log.append([policy_pinned(NEW_LOGGED + 1, own, case)])
    problems = verify_log(moved.log, policies=[POLICY]).problems
    assert any("was approved by no quorum of the one before it" in one for one in problems)
    assert any("which was replaced before" in one for one in problems)


def test_a_shard_that_was_locked_to_custodians_who_left_is_found(moved):
    moved.seal(SHARDS[1], NEW_LOGGED + 1)
    problems = verify_log(moved.log, key_store=moved.store, policies=[POLICY], recipients=[RECIPIENT.fingerprint]).problems
    assert [one for one in problems if "which was replaced" in one] == problems
    assert len(problems) == 1
    change = Change(NEW.digest, to=NEW)
    move(moved, case_for(moved, change, at=NEW_LOGGED + 2), change, now=NEW_LOGGED + 3)
    assert verify_log(moved.log, key_store=moved.store, policies=[POLICY]).problems == []


def test_custodians_who_left_acknowledge_no_shard_that_was_put_in_again(moved):
    taken = [{"segment": "s", "sha256": f"{number}" * 64, "events": 0} for number in (1, 2)]
    moved.log.append([AuditEvent("segment integrated", NEW_LOGGED + 1, facts) for facts in taken])
    for key, counts in ((CUSTODIANS[0], False), (NEW_PEOPLE[0], True)):
        ledger = Ledger()
        moved.log.read_proved(ledger.take)
        (one,) = ledger.superseded.values()
        moved.log.append([acknowledge(one, key, NEW_LOGGED + 2)])
        moved.log.read_proved((after := Ledger()).take)
        assert bool(after.superseded[one.index].acknowledged_by) == counts
        assert any("did not sign the acknowledgement" in problem for problem in after.problems)

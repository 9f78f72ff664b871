"""Another custody policy, or another recipient, for shards that a quorum locks: through a case, and through nothing else."""

import os

import pytest

from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.changes import Change
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import MisuseError, QuorumError, RecoveryRefusedError, StorageError
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.listing import list_key_files
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import name_records, release_faces
from diffpriv.keys.requests import Decision, RecoveryRequest
from diffpriv.keys.resealing import Approved, name_locks, reseal
from diffpriv.keys.rewriting import KeyFileRewriter
from diffpriv.keys.sealing import seal_part
from diffpriv.keys.store import KeyStore
from tests.attacks.test_quorum_attacks import CUSTODIANS, FACE, HOUR, POLICY, RECIPIENT, REQUESTER, SHARDS, World
from tests.keys.helpers import NOW, Vault, make_faces

NEW_PEOPLE = [CustodianKey.create(f"new custodian {n}") for n in range(2)]
NEW = CustodyPolicy(2, tuple(key.custodian for key in NEW_PEOPLE), (REQUESTER.custodian,), previous=POLICY.digest)
NEW_LOGGED = NOW + 10


class DyingStore(KeyStore):
    """A store whose machine dies at the second file."""

    lives = 1

    def put(self, dataset, shard, data):
        if not self.lives:
            raise StorageError("the machine died")
        self.lives -= 1
        return super().put(dataset, shard, data)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def case_for(world, change, policy=POLICY, people=CUSTODIANS[:2], at=NOW + 1):
    run_key = RecipientKey.generate()
    locks = name_locks(world.store, policy, change)
    options = {"now": at, "expires_at": at + HOUR, "run_key": run_key.recipient, "locks": locks, "change": change}
    case = RecoveryCase(RecoveryRequest.make((), "new people", REQUESTER, policy, **options), policy, world.log)
    case.submit(at)
    decisions = [Decision.make(case.request, one, "approve", now=at) for one in people]
    for one in decisions:
        case.approve(one, at)
    return Approved(case, decisions, run_key)


def opened(world, policy, people, at, recipient=RECIPIENT):
    """A face of shard-000 recovered under a policy."""
    named, locks = name_records(world.store, [FACE])
    run_key = RecipientKey.generate()
    options = {"now": at, "expires_at": at + HOUR, "run_key": run_key.recipient, "locks": locks}
    case = RecoveryCase(RecoveryRequest.make(named, "a test", REQUESTER, policy, **options), policy, world.log)
    case.submit(at)
    decisions = [Decision.make(case.request, one, "approve", now=at) for one in people]
    for one in decisions:
        case.approve(one, at)
    _, faces = release_faces(case, world.log, world.store, recipient, at, decisions=decisions, run_key=run_key)
    return faces[0].opened.key


def problems(world, *policies):
    return verify_log(world.log, key_store=world.store, policies=policies or [POLICY]).problems


def move(world, approved, change, policy=NEW, store=None, now=NEW_LOGGED, known=()):
    known = [RECIPIENT.recipient, *known]
    return reseal(store or world.store, world.log, RECIPIENT, policy, change, now=now, known=known, approved=approved)


def test_a_new_policy_that_the_old_quorum_approved_takes_over_every_shard(world):
    change = Change(NEW.digest)
    report = move(world, case_for(world, change), change)
    assert len(report.rewrapped) == len(SHARDS)
    assert {one.policy for one in list_key_files(world.store)} == {NEW.digest}
    assert problems(world) == []
    assert opened(world, NEW, NEW_PEOPLE, NEW_LOGGED + 1).same_as(world.faces["shard-000.tar"][1].key)
    with pytest.raises(RecoveryRefusedError, match="the log serves custody policy"):
        case_for(world, Change(POLICY.digest, add=("ab",)), at=NEW_LOGGED + 2)


def test_a_new_policy_without_the_old_quorum_moves_nothing(world):
    change = Change(NEW.digest)
    with pytest.raises(MisuseError, match="no case that was given names its lock"):
        move(world, None, change)
    with pytest.raises(RecoveryRefusedError, match="1 of 2 approvals"):
        move(world, case_for(world, change, people=CUSTODIANS[:1]), change)
    stranger = CustodyPolicy(1, (NEW_PEOPLE[0].custodian,), (REQUESTER.custodian,))
    with pytest.raises(MisuseError, match="was approved for policy"):
        move(world, case_for(world, change, at=NEW_LOGGED + 1), change, policy=stranger, now=NEW_LOGGED + 2)
    assert {one.policy for one in list_key_files(world.store)} == {POLICY.digest}


def test_a_rotation_that_died_is_run_again_and_finishes(world, tmp_path):
    change = Change(NEW.digest)
    approved = case_for(world, change)
    with pytest.raises(StorageError):
        move(world, approved, change, store=DyingStore(tmp_path / "keys"))
    assert sorted(one.policy for one in list_key_files(world.store)) == sorted([NEW.digest, POLICY.digest])
    assert any("was interrupted; run it again" in one for one in problems(world))
    report = move(world, approved, change, now=NEW_LOGGED + 5)
    assert (len(report.rewrapped), len(report.unchanged)) == (1, 1)
    assert problems(world) == []
    assert len(move(world, approved, change, now=NEW_LOGGED + 6).unchanged) == 2


def test_an_added_recipient_is_the_quorums_to_approve(world):
    second = RecipientKey(os.urandom(32), "second office")
    change = Change(POLICY.digest, add=(second.fingerprint,))
    with pytest.raises(MisuseError, match="no case that was given"):
        move(world, None, change, policy=POLICY, known=[second.recipient])
    move(world, case_for(world, change), change, policy=POLICY, known=[second.recipient])
    assert problems(world) == []
    both = (RECIPIENT.fingerprint, second.fingerprint)
    assert {one.recipients for one in list_key_files(world.store)} == {both}
    assert opened(world, POLICY, CUSTODIANS[1:], NEW_LOGGED + 1, second).same_as(world.faces["shard-000.tar"][1].key)


def test_a_shard_that_came_after_the_request_stops_the_change_before_anything_is_opened(world):
    change = Change(NEW.digest)
    approved = case_for(world, change)
    world.seal(SHARDS[1], NOW + 2)
    with pytest.raises(MisuseError, match="shards of after a request need another"):
        move(world, approved, change)
    assert approved.case.status(NEW_LOGGED).state == "approved"


def test_a_late_shard_under_the_old_policy_moves_by_another_case_of_the_old_quorum(world):
    change = Change(NEW.digest)
    move(world, case_for(world, change), change)
    world.seal(SHARDS[1], NEW_LOGGED + 1)
    report = move(world, case_for(world, change, at=NEW_LOGGED + 2), change, now=NEW_LOGGED + 3)
    assert (len(report.rewrapped), len(report.unchanged)) == (1, 1)
    assert problems(world) == []


def test_key_files_of_before_policies_are_brought_up_by_their_recipient(vault: Vault):
    """Who holds the recipient's key can open these alone, so it may lock them too; the log then pins the policy."""
    key, change = vault.recipient_key, Change(POLICY.digest)
    assert {one.policy for one in list_key_files(vault.store)} == {""}
    at = vault.log.newest()
    report = reseal(vault.store, vault.log, key, POLICY, change, now=at, known=[key.recipient])
    assert len(report.rewrapped) == len(vault.shards)
    assert {one.policy for one in list_key_files(vault.store)} == {POLICY.digest}
    assert verify_log(vault.log, key_store=vault.store, policies=[POLICY], data=vault.data_digests()).problems == []
    other = CustodyPolicy(1, (NEW_PEOPLE[0].custodian,), (REQUESTER.custodian,))
    with pytest.raises(MisuseError, match="the log serves custody policy"):
        reseal(vault.store, vault.log, key, other, Change(other.digest), now=at, known=[key.recipient])


def test_a_runner_who_seals_to_somebody_more_than_was_approved_is_found(world):
    """The program carries out what was approved; who runs other code with the log's key shows in the log."""
    accomplice = RecipientKey.generate()
    part = seal_part(SHARDS[0], [RECIPIENT.recipient, accomplice.recipient], make_faces(1))
    rewriter = KeyFileRewriter(world.store, world.log)
    file = rewriter.read("faces", "shard-000.tar")
    facts = {"added": [accomplice.fingerprint], "removed": [], "policy": POLICY.digest}
    rewriter.replace("recipient rotated", file, build_key_file(SHARDS[0], [part]), facts, NOW + 1)
    rewriter.flush()
    assert any("no released case approved that" in one for one in problems(world))


def test_the_shares_of_a_change_are_not_enough_without_the_run_key(world):
    change = Change(NEW.digest)
    approved = case_for(world, change)
    with pytest.raises(QuorumError, match="sealed to the request's run key"):
        move(world, Approved(approved.case, approved.decisions), change)

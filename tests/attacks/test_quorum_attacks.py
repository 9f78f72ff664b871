"""What insiders can try against the quorum: with the keys they hold and any code they like, and nothing else."""

import contextlib
import itertools
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpriv.keys.audit.events import AuditEvent, shard_committed
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import DiffPrivError, KeyFileError, MisuseError, QuorumError, RecoveryRefusedError
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.keyfile_layout import write_layout
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.quorum import OpenLocks, ShardLock, open_lock
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import name_records, release_faces
from diffpriv.keys.requests import CaseLock, Decision, FaceRef, RecoveryRequest
from diffpriv.keys.sealing import seal_part
from diffpriv.keys.store import KeyStore
from tests.keys.helpers import CONFIG, NOW, make_faces

HOUR = 3600
CUSTODIANS = [CustodianKey.create(f"custodian {n}") for n in range(3)]
REQUESTER = CustodianKey.create("requester")
POLICY = CustodyPolicy(2, tuple(key.custodian for key in CUSTODIANS), (REQUESTER.custodian,))
RECIPIENT = RecipientKey(os.urandom(32), "recovery office")
LOG_KEY = NoteKey.create("log.test/attacks")
SHARDS = [ShardContext("faces", f"shard-{n:03d}.tar", CONFIG) for n in range(2)]
FACE = FaceRef("faces", "shard-000.tar", "img00001", 0)


class World:
    """A key store, a log, and two shards locked under the policy."""

    def __init__(self, folder, policy=POLICY) -> None:
        self.folder, self.policy = folder, policy
        self.store, self.log = KeyStore(folder / "keys"), AuditLog(folder / "audit", LOG_KEY)
        self.faces = {}
        for context in SHARDS:
            self.seal(context, NOW)

    def copied(self, folder):
        """The same store and log elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        other = World.__new__(World)
        other.__dict__ = {**vars(self), "folder": folder}
        other.store, other.log = KeyStore(folder / "keys"), AuditLog(folder / "audit", LOG_KEY)
        return other

    def seal(self, context, at):
        self.faces[context.shard] = make_faces(3)
        part = seal_part(context, [RECIPIENT.recipient], self.faces[context.shard], ShardLock.make(context, self.policy))
        receipt = self.store.put("faces", context.shard, build_key_file(context, [part]))
        stated = {"recipients": [RECIPIENT.fingerprint], "policy": self.policy.digest}
        event = shard_committed(at, "run", context, faces=3, key_file=receipt, data_sha256="ab" * 32, **stated)
        self.log.append([event])

    def key_file(self, shard="shard-000.tar") -> KeyFile:
        return KeyFile.parse(self.store.get("faces", shard))

    def ask(self, face=FACE, policy=POLICY, requester=REQUESTER, run_key=None):
        named, locks = name_records(self.store, [face])
        run_key = run_key or RecipientKey.generate()
        options = {"now": NOW, "expires_at": NOW + HOUR, "run_key": run_key.recipient, "locks": locks}
        return RecoveryRequest.make(named, "a test", requester, policy, **options), run_key

    def approved(self, *who):
        asked, run_key = self.ask()
        case = RecoveryCase(asked, POLICY, self.log)
        case.submit(NOW)
        decisions = [Decision.make(asked, CUSTODIANS[n], "approve", now=NOW + 1) for n in who]
        for one in decisions:
            case.approve(one, NOW + 1)
        return case, decisions, run_key


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def opened(file: KeyFile, recipients, custodians) -> bool:
    """Whether these private keys, with the product's own parts put together in any way, open the face."""
    (lock,) = file.locks
    shares = {}
    for place, key in itertools.product(range(len(lock.shares)), custodians):
        try:
            shares[place] = lock.open_share(file.context, place, key.sealing_key)
        except DiffPrivError:
            continue
    locks = OpenLocks()
    with contextlib.suppress(QuorumError):
        locks.add(lock, open_lock(lock, file.context, shares))
    for recipient in recipients:
        try:
            file.open_face(FACE.sample, FACE.face_index, recipient, locks)
            return True
        except DiffPrivError:
            continue
    return False


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> KeyFile:
    return World(tmp_path_factory.mktemp("subsets")).key_file()


@given(
    recipient=st.booleans(),
    custodians=st.sets(st.integers(0, 2)),
    strangers=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_a_set_of_keys_opens_a_face_exactly_when_the_recipient_and_a_quorum_are_in_it(sealed, recipient, custodians, strangers):
    """Whoever holds write access to DST, store or log besides holds bytes that they could read anyway, and no key more."""
    keys = [CUSTODIANS[n] for n in custodians] + [CustodianKey.create(f"stranger {n}") for n in range(strangers)]
    assert opened(sealed, [RECIPIENT] * recipient, keys) == (recipient and len(custodians) >= POLICY.quorum)


def by_their_own_lock(world, recipients):
    """Write access to the store: the file's lock replaced by one that they can open."""
    mine = CustodianKey.create("mine")
    own = CustodyPolicy(1, (mine.custodian,), (REQUESTER.custodian,))
    file = world.key_file()
    lock = ShardLock.make(file.context, own)
    layout = replace(file._layout, locks=[lock])
    world.store.put("faces", "shard-000.tar", write_layout(layout))
    return opened(world.key_file(), recipients, [mine])


def by_invented_approvals(world, recipients):
    """The log's key: approvals that no custodian gave, with shares that no custodian passed on."""
    asked, run_key = world.ask()
    case = RecoveryCase(asked, POLICY, world.log)
    case.submit(NOW)
    mine = [CustodianKey.create(f"mine {n}") for n in range(2)]
    own = CustodyPolicy(2, tuple(key.custodian for key in mine), (REQUESTER.custodian,))
    (context, _), *_ = asked.locks
    theirs = replace(asked, locks=(CaseLock(context, ShardLock.make(context, own)),))
    made = [Decision.make(theirs, key, "approve", now=NOW) for key in mine]
    forged = [
        replace(one, case=case.case, custodian=key.custodian.fingerprint) for one, key in zip(made, CUSTODIANS, strict=False)
    ]
    facts = [{"case": case.case, "custodian": one.custodian, "approval": one.logged()} for one in forged]
    world.log.append([AuditEvent("recovery approved", NOW, one) for one in facts])
    world.log.append([AuditEvent("recovery released", NOW, {"case": case.case, "faces": 1})])
    for recipient in recipients:
        with contextlib.suppress(DiffPrivError):
            release_faces(case, world.log, world.store, recipient, NOW, decisions=forged, run_key=run_key)
            return True
    return False


def by_a_log_begun_again(world, recipients, log_key):
    """Write access to the log's folder: the signed head is gone, and history is to start anew."""
    (world.folder / "audit" / "checkpoint").unlink(missing_ok=True)
    log = AuditLog(world.folder / "audit", log_key)
    asked, run_key = world.ask()
    case = RecoveryCase(asked, POLICY, log)
    for recipient in recipients:
        with contextlib.suppress(DiffPrivError):
            case.submit(NOW)
            release_faces(case, log, world.store, recipient, NOW, run_key=run_key)
            return True
    return False


def by_planted_work(world, recipients):
    """Write access to DST: work as a dead run leaves it, with a key file that opens for one of their own."""
    folder = world.folder / "data/.diffpriv/staging/shard-000.tar"
    folder.mkdir(parents=True)
    (folder / "prepared.json").write_bytes(build_key_file(SHARDS[0], [seal_part(SHARDS[0], [RECIPIENT.recipient], [])]))
    return opened(world.key_file(), recipients, [])


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    return World(tmp_path_factory.mktemp("origin"))


@given(
    recipient=st.booleans(),
    custodians=st.sets(st.integers(0, 2)),
    held=st.sets(st.sampled_from(["log key", "DST", "store", "log"])),
)
@settings(max_examples=16, deadline=None)
def test_whatever_is_held_besides_opens_no_face_without_the_recipient_and_a_quorum(origin, recipient, custodians, held):
    """Every means is used as far as it goes, with the product's own parts and the attacker's own order of calls."""
    recipients = [RECIPIENT] * recipient
    with tempfile.TemporaryDirectory() as name:
        world = origin.copied(Path(name))
        tries = [opened(world.key_file(), recipients, [CUSTODIANS[n] for n in custodians])]
        if "DST" in held:
            tries.append(by_planted_work(world, recipients))
        if "log key" in held:
            tries.append(by_invented_approvals(world, recipients))
        if "log" in held:
            tries.append(
                by_a_log_begun_again(world, recipients, LOG_KEY if "log key" in held else NoteKey.create("log.test/x"))
            )
        if "store" in held:
            tries.append(by_their_own_lock(world, recipients))
    assert any(tries) == (recipient and len(custodians) >= POLICY.quorum)
    assert not any(tries[1:]), "only the keys themselves open"


def test_recipient_and_log_key_under_a_policy_of_their_own_open_nothing(world):
    mallory, accomplice = CustodianKey.create("mallory"), CustodianKey.create("accomplice")
    own = CustodyPolicy(1, (accomplice.custodian,), (mallory.custodian,))
    with pytest.raises(MisuseError, match="is locked under policy"):
        world.ask(policy=own, requester=mallory)
    named, _ = name_records(world.store, [FACE])
    asked = RecoveryRequest.make(named, "x", mallory, own, now=NOW, expires_at=NOW + HOUR)
    case = RecoveryCase(asked, own, world.log)
    case.submit(NOW)
    case.approve(Decision.make(asked, accomplice, "approve", now=NOW + 1), NOW + 1)
    with pytest.raises(QuorumError, match="2 of its 3 custodians"):
        release_faces(case, world.log, world.store, RECIPIENT, NOW + 2)
    problems = verify_log(world.log, policies=[POLICY]).problems
    assert any("none that was given: it serves other custodians" in one for one in problems)


def test_one_custodian_and_all_other_keys_open_nothing(world):
    case, decisions, run_key = world.approved(0)
    with pytest.raises(RecoveryRefusedError, match="1 of 2 approvals"):
        release_faces(case, world.log, world.store, RECIPIENT, NOW + 2, decisions=decisions, run_key=run_key)


def test_two_approvals_open_their_face_and_no_other_shard(world):
    case, decisions, run_key = world.approved(0, 2)
    _, faces = release_faces(case, world.log, world.store, RECIPIENT, NOW + 2, decisions=decisions, run_key=run_key)
    assert faces[0].opened.key.same_as(world.faces["shard-000.tar"][1].key)
    other = world.key_file("shard-001.tar")
    with pytest.raises(QuorumError):
        other.open_face("img00000", 0, RECIPIENT)


def test_approvals_in_the_log_without_their_shares_open_nothing(world):
    case, _, run_key = world.approved(0, 1)
    with pytest.raises(QuorumError, match="takes the mailed approvals of 2 custodians"):
        release_faces(case, world.log, world.store, RECIPIENT, NOW + 2, run_key=run_key)
    assert case.status(NOW + 3).state == "approved", "the attempt did not use the case up"


def test_shares_of_an_approval_open_for_no_other_case_and_no_other_run_key(world):
    case, decisions, _ = world.approved(0, 1)
    with pytest.raises(QuorumError, match="was not given"):
        release_faces(case, world.log, world.store, RECIPIENT, NOW + 2, decisions=decisions, run_key=RecipientKey.generate())
    asked, _ = world.ask()
    second = RecoveryCase(asked, POLICY, world.log)
    second.submit(NOW + 2)
    for one in decisions:
        with pytest.raises(RecoveryRefusedError, match="about another request"):
            second.approve(replace(one), NOW + 3)


def test_swapped_shares_void_the_approval(world):
    asked, _ = world.ask()
    made = [Decision.make(asked, CUSTODIANS[n], "approve", now=NOW + 1) for n in (0, 1)]
    forged = replace(made[0], shares=made[1].shares)
    assert not forged.signed_by(POLICY)


def test_a_request_that_slips_in_the_lock_of_another_shard_gets_no_share(world):
    named, locks = name_records(world.store, [FACE])
    _, others = name_records(world.store, [FaceRef("faces", "shard-001.tar", "img00000", 0)])
    run_key = RecipientKey.generate()
    options = {"now": NOW, "expires_at": NOW + HOUR, "run_key": run_key.recipient}
    asked = RecoveryRequest.make(named, "x", REQUESTER, POLICY, locks=[*locks, *others], **options)
    with pytest.raises(MisuseError, match="made to mislead"):
        Decision.make(asked, CUSTODIANS[0], "approve", now=NOW + 1)
    disguised = [CaseLock(locks[0].context, others[0].lock)]
    asked = RecoveryRequest.make(named, "x", REQUESTER, POLICY, locks=disguised, **options)
    with pytest.raises(KeyFileError, match="does not open"):
        Decision.make(asked, CUSTODIANS[0], "approve", now=NOW + 1)


def test_after_a_redo_another_persons_face_is_not_opened(world):
    """The same name and number stand for another record then."""
    case, decisions, run_key = world.approved(0, 1)
    world.seal(SHARDS[0], NOW + 2)
    with pytest.raises(KeyFileError, match="another record than the approved one"):
        release_faces(case, world.log, world.store, RECIPIENT, NOW + 3, decisions=decisions, run_key=run_key)

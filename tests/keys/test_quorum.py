"""The quorum in the cryptography: whoever lacks the recipient's key or a share opens nothing, whatever code they run."""

import itertools
import pickle

import pytest

from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import KeyFileError, MisuseError, QuorumError, RecordError
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.quorum import OpenLocks, ShardLock, join_root, open_lock, pass_share, split_root, take_share
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.sealing import seal_part, wrap_context
from tests.keys.helpers import CONFIG, make_faces

CONTEXT = ShardContext("faces", "shard-000.tar", CONFIG)
CUSTODIANS = [CustodianKey.create(f"custodian {number}") for number in range(5)]
POLICY = CustodyPolicy(3, tuple(key.custodian for key in CUSTODIANS))


@pytest.fixture(scope="module")
def lock() -> ShardLock:
    return ShardLock.make(CONTEXT, POLICY)


def dealt(lock: ShardLock, *places: int):
    return {place: lock.open_share(CONTEXT, place, CUSTODIANS[place].sealing_key) for place in places}


@pytest.mark.parametrize(("quorum", "count"), [(1, 1), (1, 3), (2, 2), (2, 3), (3, 5), (16, 16)])
def test_any_quorum_of_shares_gives_the_root_back_and_fewer_do_not(quorum, count):
    root = RecipientKey.generate()
    shares = split_root(root, quorum, count)
    for places in list(itertools.combinations(range(count), quorum))[:10]:
        assert join_root({place: shares[place] for place in places}, quorum).same_as(root)
    with pytest.raises(QuorumError):
        join_root({place: shares[place] for place in range(quorum - 1)}, quorum)


def test_a_quorum_opens_the_lock_and_two_of_three_do_not(lock):
    assert open_lock(lock, CONTEXT, dealt(lock, 0, 2, 4)).recipient.public == lock.public
    with pytest.raises(QuorumError, match="3 of its 5 custodians, and 2 are at hand"):
        open_lock(lock, CONTEXT, dealt(lock, 1, 3))


def test_a_share_opens_for_its_custodian_its_shard_and_its_policy_only(lock):
    with pytest.raises(RecordError):
        lock.open_share(CONTEXT, 0, CUSTODIANS[1].sealing_key)
    with pytest.raises(RecordError):
        lock.open_share(ShardContext("faces", "shard-001.tar", CONFIG), 0, CUSTODIANS[0].sealing_key)
    body = lock.to_json() | {"policy": "00" * 32}
    with pytest.raises(RecordError):
        ShardLock.from_json(body).open_share(CONTEXT, 0, CUSTODIANS[0].sealing_key)


def test_one_wrong_share_does_not_hide_the_right_ones(lock):
    shares = dealt(lock, 0, 1, 2, 3)
    shares[1] = dealt(lock, 4)[4]
    assert open_lock(lock, CONTEXT, shares).recipient.public == lock.public
    with pytest.raises(QuorumError, match=r"custodian .* is not the one dealt"):
        lock.check(CONTEXT, 1, shares[1])


def test_a_passed_share_opens_for_the_run_key_and_the_case_it_was_passed_for(lock):
    run_key, share = RecipientKey.generate(), dealt(lock, 2)[2]
    passed = pass_share(lock, CONTEXT, 2, share, run_key.recipient, "ca" * 32)
    assert take_share(lock, CONTEXT, 2, passed, run_key, "ca" * 32).same_as(share)
    for key, case in ((RecipientKey.generate(), "ca" * 32), (run_key, "cb" * 32)):
        with pytest.raises(RecordError):
            take_share(lock, CONTEXT, 2, passed, key, case)


def test_a_shard_key_takes_both_secrets(lock):
    recipient = RecipientKey.generate()
    faces = make_faces(3)
    part = seal_part(CONTEXT, [recipient.recipient], faces, lock)
    file = KeyFile.parse(build_key_file(CONTEXT, [part]))
    assert file.policy == POLICY.digest
    with pytest.raises(QuorumError, match="takes the shares of 3 of its 5 custodians"):
        file.open_face("img00001", 0, recipient)
    opened = OpenLocks({lock.id: open_lock(lock, CONTEXT, dealt(lock, 0, 1, 2))})
    assert file.open_face("img00001", 0, recipient, opened).key.same_as(faces[1].key)
    other = OpenLocks({lock.id: RecipientKey.generate()})
    with pytest.raises(RecordError):
        file.open_face("img00001", 0, recipient, other)
    # The recipients' half alone is not the shard key, and no two of it and the record fit.
    half = recipient.unwrap(part.wraps[0], wrap_context(CONTEXT, part.commitment, lock))
    assert reveal(half) != reveal(file.shard_key(0, recipient, opened))


def test_a_lock_travels_as_bytes_and_holds_nothing_that_opens(lock):
    assert ShardLock.decode(lock.encode()) == lock == pickle.loads(pickle.dumps(lock))
    with pytest.raises(KeyFileError):
        ShardLock.decode(lock.encode()[:-2])
    with pytest.raises(TypeError):
        pickle.dumps(OpenLocks())


def test_a_lock_costs_one_and_a_half_kilobytes_a_custodian(lock):
    faces = make_faces(1)
    recipient = RecipientKey.generate().recipient
    plain = len(build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient], faces)]))
    locked = len(build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient], faces, lock)]))
    once = 2 * len(lock.to_json()["public"]) + 500  # the lock's public key, and the quorum's half in the part
    assert locked - plain - once <= 1536 * len(CUSTODIANS)


def test_parts_of_one_shard_under_two_locks_are_one_key_file():
    """A shard that was read twice, because a reader died, has two locks; both are kept and both are needed."""
    recipient = RecipientKey.generate()
    locks = [ShardLock.make(CONTEXT, POLICY) for _ in range(2)]
    faces = make_faces(4)
    parts = [seal_part(CONTEXT, [recipient.recipient], faces[at : at + 2], locks[at // 2]) for at in (0, 2)]
    file = KeyFile.parse(build_key_file(CONTEXT, parts))
    assert {lock.id for lock in file.locks} == {lock.id for lock in locks}
    assert file.lock_of("img00003", 0) == locks[1]
    gone, _ = file.without(lambda face: face[0] in ("img00000", "img00001"), 5)
    assert [lock.id for lock in KeyFile.parse(gone).locks] == [locks[1].id]


def test_a_key_file_changes_hands_under_a_new_policy_and_old_shares_open_it_no_more(lock):
    recipient, successor = RecipientKey.generate(), RecipientKey.generate()
    faces = make_faces(3)
    file = KeyFile.parse(build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient.recipient], faces, lock)]))
    opened = OpenLocks({lock.id: open_lock(lock, CONTEXT, dealt(lock, 0, 1, 2))})
    new = CustodyPolicy(1, (CUSTODIANS[0].custodian,), previous=POLICY.digest)
    fresh = ShardLock.make(CONTEXT, new)
    moved = KeyFile.parse(file.resealed([successor.recipient], fresh, recipient, opened))
    assert (moved.policy, moved.sealed_to) == (new.digest, [successor.fingerprint])
    with pytest.raises(QuorumError):
        moved.open_face("img00000", 0, successor, opened)
    root = open_lock(fresh, CONTEXT, {0: fresh.open_share(CONTEXT, 0, CUSTODIANS[0].sealing_key)})
    assert moved.open_face("img00000", 0, successor, OpenLocks({fresh.id: root})).payload == faces[0].payload


def test_a_key_file_of_before_comes_under_a_policy(lock):
    recipient = RecipientKey.generate()
    faces = make_faces(2)
    old = KeyFile.parse(build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient.recipient], faces)]))
    moved = KeyFile.parse(old.resealed([recipient.recipient], lock, recipient))
    with pytest.raises(QuorumError):
        moved.open_face("img00000", 0, recipient)
    opened = OpenLocks({lock.id: open_lock(lock, CONTEXT, dealt(lock, 2, 3, 4))})
    assert moved.open_face("img00001", 0, recipient, opened).key.same_as(faces[1].key)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CustodyPolicy(1, tuple(CustodianKey.create(str(n)).custodian for n in range(17))), "at most 16"),
        (lambda: CustodyPolicy(1, (POLICY.custodians[0],), witness_quorum=1), "1 of 0 witnesses"),
        (lambda: ShardLock.make(CONTEXT, _without_sealing()), "can't lock shards"),
    ],
)
def test_a_policy_that_could_not_work_is_refused(make, message):
    with pytest.raises(MisuseError, match=message):
        make()


def _without_sealing() -> CustodyPolicy:
    return CustodyPolicy(1, (type(POLICY.custodians[0])("Ada", POLICY.custodians[0].public),))


def test_a_policy_in_the_log_has_its_digest_and_no_names():
    form = POLICY.public_form()
    assert CustodyPolicy.from_public_form(form).digest == POLICY.digest
    assert "custodian 0" not in str(form)
    assert CustodyPolicy.from_json(POLICY.to_json()) == POLICY

"""What those who can write the log's folder, or hold its key, can try; and what verify and kept heads make of it."""

import shutil

import pytest

from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.heads import KeptHead
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.proofs import witness
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.audit.witness import Witness, ask_witness, serve
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import AuditError, RecoveryRefusedError, WitnessError
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import release_faces
from diffpriv.keys.requests import Decision, RecoveryRequest
from tests.attacks.test_quorum_attacks import CUSTODIANS, HOUR, LOG_KEY, POLICY, RECIPIENT, REQUESTER, SHARDS, World
from tests.keys.helpers import NOW


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path / "world")


def released(world: World, log: AuditLog, at: int = NOW + 2):
    asked, run_key = world.ask()
    case = RecoveryCase(asked, POLICY, log)
    case.submit(NOW)
    decisions = [Decision.make(asked, CUSTODIANS[n], "approve", now=NOW + 1) for n in (0, 1)]
    for one in decisions:
        case.approve(one, NOW + 1)
    release_faces(case, log, world.store, RECIPIENT, at, decisions=decisions, run_key=run_key)
    return case, decisions, run_key


def test_a_removed_checkpoint_is_an_error_though_pending_was_touched(world):
    folder = world.log.location.root
    (folder / "checkpoint").unlink()
    (folder / "pending").touch()
    with pytest.raises(AuditError, match="the checkpoint was removed"):
        world.log.append([AuditEvent("recovery expired", NOW, {"case": "ca" * 32})])
    assert any("the checkpoint was removed" in one for one in verify_log(world.log).problems)


def test_a_folder_that_was_emptied_is_refused_by_whoever_kept_a_head(world, tmp_path):
    kept = [KeptHead(tmp_path / "log.key.head")]
    AuditLog(world.log.url, LOG_KEY, kept=kept).checkpoint()
    shutil.rmtree(world.log.location.root)
    with pytest.raises(AuditError, match="had 2 when it was seen last: it was cut back"):
        AuditLog(world.log.url, LOG_KEY, kept=kept).append([AuditEvent("recovery expired", NOW, {"case": "ca" * 32})])


def test_a_copy_of_the_folder_from_before_serves_for_no_second_release(world, tmp_path):
    kept = [KeptHead(tmp_path / "office.key.head")]
    log = AuditLog(world.log.url, LOG_KEY, kept=kept)
    shutil.copytree(world.log.location.root, tmp_path / "copy")
    case, decisions, run_key = released(world, log)
    copy = AuditLog(tmp_path / "copy", LOG_KEY, kept=kept)
    again = RecoveryCase(case.request, POLICY, copy)
    with pytest.raises(AuditError, match="it was cut back"):
        release_faces(again, copy, world.store, RECIPIENT, NOW + 3, decisions=decisions, run_key=run_key)


def test_one_changed_byte_reopens_no_released_case(world):
    case, decisions, run_key = released(world, world.log)
    bundle = max((world.log.location.root / "tile/entries").rglob("*.p/*"), key=lambda path: int(path.name))
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"kind":"recovery released"', b'"kind":"recovery_released"'))
    with pytest.raises(AuditError, match="an entry was altered"):
        release_faces(case, world.log, world.store, RECIPIENT, NOW + 3, decisions=decisions, run_key=run_key)
    assert not verify_log(world.log).ok


def test_an_expired_case_does_not_run_with_the_clock_set_back(world):
    asked, _ = world.ask()
    case = RecoveryCase(asked, POLICY, world.log)
    case.submit(NOW)
    world.log.append([AuditEvent("recovery expired", NOW + 2 * HOUR, {"case": "ca" * 32})])
    with pytest.raises(RecoveryRefusedError, match="Set this machine's clock right"):
        case.approve(Decision.make(asked, CUSTODIANS[0], "approve", now=NOW + 1), NOW + 1)
    with pytest.raises(AuditError, match="time never runs backwards"):
        world.log.append([AuditEvent("recovery released", NOW + 1, {"case": asked.case, "faces": 1})])


def forge(world, kind, at, **facts):
    world.log.append([AuditEvent(kind, at, facts)])


def test_approvals_with_64_zero_bytes_as_signature_are_found(world):
    asked, _ = world.ask()
    RecoveryCase(asked, POLICY, world.log).submit(NOW)
    for key in CUSTODIANS[:2]:
        signed = {"decided_at": NOW + 1, "signature": "A" * 86 + "==", "shares_sha256": "00" * 32}
        forge(world, "recovery approved", NOW + 1, case=asked.case, custodian=key.custodian.fingerprint, approval=signed)
    forge(world, "recovery released", NOW + 2, case=asked.case, faces=1)
    problems = verify_log(world.log).problems  # without a policy given: the log pins it
    assert sum("did not sign it" in one for one in problems) == 2
    assert any("released with 0 of 2 approvals" in one for one in problems)


def test_a_case_under_a_policy_of_nobody_that_was_never_pinned_is_found(world):
    """Who holds the log's key leaves the pin out, and hopes for a note instead of a finding."""
    own = CustodyPolicy(1, (CustodianKey.create("mallory").custodian,), (REQUESTER.custodian,))
    asked = RecoveryRequest.from_json(world.ask()[0].to_json() | {"policy": own.digest, "quorum": 1})
    facts = {"case": asked.case, "requester": asked.requester, "quorum": 1, "policy": own.digest, "faces": 1}
    forge(world, "recovery requested", NOW, **facts, expires_at="2030-01-01T00:00:00Z", request={"signature": "A" * 86 + "=="})
    forge(world, "recovery released", NOW, case=asked.case, faces=1)
    problems = verify_log(world.log, policies=[POLICY]).problems
    assert any("none of those given" in one for one in problems)
    assert any("never requested" in one for one in problems)


def test_a_second_policy_that_no_quorum_approved_is_found(world):
    asked, _ = world.ask()
    RecoveryCase(asked, POLICY, world.log).submit(NOW)
    own = CustodyPolicy(1, (CustodianKey.create("mallory").custodian,), previous=POLICY.digest)
    forge(world, "policy pinned", NOW + 1, policy=own.digest, form=own.public_form())
    problems = verify_log(world.log, policies=[POLICY]).problems
    assert any("was approved by no quorum of the one before it" in one for one in problems)


def test_a_hostile_second_recipient_is_in_the_log_and_found(world):
    from diffpriv.keys.audit.events import shard_committed
    from diffpriv.keys.keyfile import build_key_file
    from diffpriv.keys.quorum import ShardLock
    from diffpriv.keys.sealing import seal_part
    from tests.keys.helpers import make_faces

    hostile = RecipientKey.generate()
    both = [RECIPIENT.recipient, hostile.recipient]
    data = build_key_file(SHARDS[0], [seal_part(SHARDS[0], both, make_faces(3), ShardLock.make(SHARDS[0], POLICY))])
    receipt = world.store.put("faces", SHARDS[0].shard, data)
    for stated in ([RECIPIENT.fingerprint, hostile.fingerprint], [RECIPIENT.fingerprint]):
        facts = {"recipients": stated, "policy": POLICY.digest}
        world.log.append([shard_committed(NOW, "run", SHARDS[0], faces=3, key_file=receipt, data_sha256="ab" * 32, **facts)])
        found = verify_log(world.log, key_store=world.store, policies=[POLICY], recipients=[RECIPIENT.fingerprint]).problems
        assert any("nobody you named" in one or "sealed to others than" in one for one in found)


def test_a_shard_without_a_policy_is_found_where_one_is_expected(world):
    from diffpriv.keys.audit.events import shard_committed

    event = shard_committed(NOW, "r", SHARDS[1], faces=3, key_file=world.store.put("faces", "x", b"x"), data_sha256="ab" * 32)
    world.log.append([event])
    assert any("under no custody policy" in one for one in verify_log(world.log, policies=[POLICY]).problems)


# --- witnesses ----------------------------------------------------------------------------------------------------------

WITNESS = NoteKey.create("witness.test", witness=True)


def test_a_policy_with_a_witness_opens_nothing_before_a_cosigned_head_holds_the_release(tmp_path):
    watched = CustodyPolicy(2, POLICY.custodians, POLICY.requesters, (WITNESS.verifier.vkey,), 1)
    world = World(tmp_path, watched)
    asked, run_key = world.ask(policy=watched)
    case = RecoveryCase(asked, watched, world.log)
    case.submit(NOW)
    decisions = [Decision.make(asked, CUSTODIANS[n], "approve", now=NOW + 1) for n in (0, 1)]
    for one in decisions:
        case.approve(one, NOW + 1)

    def run(at):
        return release_faces(case, world.log, world.store, RECIPIENT, at, decisions=decisions, run_key=run_key)

    with pytest.raises(WitnessError, match="0 of 1 witnesses"):
        run(NOW + 2)
    line = witness(world.log, WITNESS, tmp_path / "memory.json", now=NOW + 3)
    world.log.add_cosignature(line, WITNESS.verifier)
    _, faces = run(NOW + 4)
    assert len(faces) == 1
    with pytest.raises(RecoveryRefusedError, match="released before"):
        run(NOW + 5)
    assert verify_log(world.log, policies=[watched]).problems == []


def test_a_witness_over_http_cosigns_what_grows_and_refuses_what_was_cut(world, tmp_path):
    import threading

    server = serve(Witness(WITNESS, [LOG_KEY.verifier], tmp_path / "memory"), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        shutil.copytree(world.log.location.root, tmp_path / "old")
        for at in (NOW + 1, NOW + 2):
            world.log.append([AuditEvent("recovery expired", at, {"case": "ca" * 32})])
            line = ask_witness(world.log, url, WITNESS.verifier)
            assert world.log.add_cosignature(line, WITNESS.verifier).witnesses[0][0] == "witness.test"
        old = AuditLog(tmp_path / "old", LOG_KEY)
        with pytest.raises(AuditError, match="refuses the head of 2 entries"):
            ask_witness(old, url, WITNESS.verifier)
        old.append([AuditEvent("recovery expired", NOW + n, {"case": "cb" * 32}) for n in range(5)])
        with pytest.raises(AuditError, match="422"):
            ask_witness(old, url, WITNESS.verifier)
        stranger = AuditLog(tmp_path / "other", NoteKey.create("other.test/log"))
        stranger.append([AuditEvent("recovery expired", NOW, {"case": "ca" * 32})])
        with pytest.raises(AuditError, match="404"):
            ask_witness(stranger, url, WITNESS.verifier)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_request_nobody_of_the_policy_signed_is_found(world):
    asked, _ = world.ask()
    altered = RecoveryRequest.from_json(asked.to_json() | {"purpose": "another"})
    facts = {"case": altered.case, "requester": REQUESTER.custodian.fingerprint, "quorum": 2, "policy": POLICY.digest}
    facts |= {"faces": 1, "expires_at": "2030-01-01T00:00:00Z", "request": {"signature": "A" * 86 + "=="}}
    forge(world, "recovery requested", NOW, **facts)
    assert any("no person of the custody policy signed it" in one for one in verify_log(world.log, policies=[POLICY]).problems)

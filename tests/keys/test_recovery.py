"""Recovery: what the requester, the custodians and the operator see, step by step."""

import json
from dataclasses import replace

import pytest

from diffpriv.keys.audit.events import AuditEvent, shard_committed
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import (
    AuditError,
    KeyFileError,
    MisuseError,
    RecipientError,
    RecordError,
    RecoveryRefusedError,
    ShreddedError,
    UnknownFaceError,
    WrongRecipientError,
)
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import make_receipt, name_records, read_receipt, release_faces
from diffpriv.keys.requests import Decision, FaceRef, RecoveryRequest
from diffpriv.keys.sealing import seal_part
from tests.keys.helpers import CONFIG, NOW, make_faces

DAY = 86_400
CONTEXT = ShardContext("faces", "shard-000.tar", CONFIG)


@pytest.fixture
def faces(store, log, recipient_key):
    """Six sealed faces of one committed shard."""
    sealed = make_faces(3, 2)
    receipt = store.put(
        "faces", "shard-000.tar", build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient_key.recipient], sealed)])
    )
    log.append([shard_committed(NOW, "run-1", CONTEXT, faces=6, key_file=receipt, data_sha256="ab" * 32)])
    return sealed


FACE = FaceRef("faces", "shard-000.tar", "img00001", 1)
SOME_RECORD = "ab" * 32


def ask(people, face=FACE, store=None):
    """A request for one face, by the record that `store` has of it now."""
    (wanted,) = name_records(store, [face])[0] if store is not None else [face._replace(record=SOME_RECORD)]
    return RecoveryRequest.make(
        [wanted], "court order 12/26", people.requester, people.policy, now=NOW, expires_at=NOW + 7 * DAY
    )


@pytest.fixture
def request_(people, faces, store):
    return ask(people, store=store)


@pytest.fixture
def case(request_, people, log):
    case = RecoveryCase(request_, people.policy, log)
    case.submit(NOW)
    return case


def approve(case, people, *who, now=NOW + 60):
    for number in who:
        case.approve(Decision.make(case.request, people.custodians[number], "approve", now=now), now)


def refused(log):
    return [(event.facts["step"], event.facts["reason"]) for _, event in log.events('"kind":"recovery refused"')]


def kinds(log, case):
    return [event.kind for _, event in log.events(case.case)]


def test_two_custodians_together_bring_back_exactly_the_requested_face(case, people, log, store, recipient_key, faces):
    approve(case, people, 0, 2)
    assert case.status(NOW + 61).state == "approved"
    release, opened = release_faces(case, log, store, recipient_key, NOW + 100)
    (one,) = opened
    assert one.face[:4] == ("faces", "shard-000.tar", "img00001", 1)
    assert one.opened.key.same_as(faces[3].key)
    assert one.opened.payload == faces[3].payload
    expected = ["recovery requested", "recovery approved", "recovery approved", "recovery released"]
    assert kinds(log, case) == expected
    assert list(log.events())[release.log_index][1].kind == "recovery released"
    assert verify_log(log, key_store=store).ok


def test_one_custodian_alone_recovers_nothing_and_the_attempt_is_logged(case, people, log, store, recipient_key, faces):
    approve(case, people, 1)
    with pytest.raises(RecoveryRefusedError, match="1 of 2 approvals") as caught:
        release_faces(case, log, store, recipient_key, NOW + 100)
    assert caught.value.reason == "too-few-approvals"
    assert refused(log) == [("release", "too-few-approvals")]


def test_the_request_and_its_approvals_are_in_the_log_before_any_key_is_unwrapped(
    case, people, log, store, recipient_key, faces
):
    approve(case, people, 0, 1)
    seen = []

    class Watching:
        fingerprint = recipient_key.fingerprint

        def unwrap(self, wrapped, info):
            seen.append(kinds(log, case))
            return recipient_key.unwrap(wrapped, info)

    release_faces(case, log, store, Watching(), NOW + 100)
    assert seen == [["recovery requested", "recovery approved", "recovery approved", "recovery released"]]


def test_every_step_is_a_file_that_can_be_mailed(case, people, log, store, recipient_key, faces, tmp_path):
    case.request.save(tmp_path / "request.json")
    mailed = RecoveryRequest.load(tmp_path / "request.json")
    assert mailed == case.request
    assert mailed.case == case.case
    for number in (0, 1):  # no log, no store on the custodians' machines
        Decision.make(mailed, people.custodians[number], "approve", now=NOW + 5).save(tmp_path / f"{number}.json")
    elsewhere = RecoveryCase(mailed, CustodyPolicy.from_json(json.loads(json.dumps(people.policy.to_json()))), log)
    for number in (0, 1):
        elsewhere.approve(Decision.load(tmp_path / f"{number}.json"), NOW + 100)
    assert case.status(NOW + 101).state == "approved"
    for path in tmp_path.glob("*.json"):
        path.write_text("{}")
        with pytest.raises(RecipientError, match=path.name):
            (RecoveryRequest if path.name == "request.json" else Decision).load(path)


def test_a_released_case_never_releases_again(case, people, log, store, recipient_key, faces):
    approve(case, people, 0, 1)
    release_faces(case, log, store, recipient_key, NOW + 100)
    with pytest.raises(RecoveryRefusedError, match="released before"):
        release_faces(case, log, store, recipient_key, NOW + 101)
    with pytest.raises(RecoveryRefusedError, match="submitted before"):
        case.submit(NOW + 102)
    assert refused(log) == [("release", "released"), ("request", "replayed")]


def test_a_denied_case_is_closed(case, people, log, store, recipient_key, faces):
    approve(case, people, 0, 1)
    case.deny(Decision.make(case.request, people.custodians[2], "deny", now=NOW + 70), NOW + 70)
    status = case.status(NOW + 71)
    assert (status.state, status.denied_by) == ("denied", people.custodians[2].custodian.fingerprint)
    with pytest.raises(RecoveryRefusedError, match="denied before"):
        release_faces(case, log, store, recipient_key, NOW + 100)


def test_a_case_expires_at_its_hour_not_after_it(case, people, log):
    end = case.request.expires_at
    assert case.status(end - 1).state == "requested"
    assert case.status(end).state == "expired"
    for _ in range(2):
        with pytest.raises(RecoveryRefusedError, match="expired at 2026-09-28"):
            approve(case, people, 0, now=end)
    assert kinds(log, case).count("recovery expired") == 1
    assert case.status(end - 1).state == "expired"  # turning the clock back does not revive it


def test_every_change_to_a_request_voids_it(case, people, log):
    approval = Decision.make(case.request, people.custodians[0], "approve", now=NOW + 5)
    other_face = (FaceRef("faces", "shard-000.tar", "img00002", 0, SOME_RECORD),)
    changes = [
        {"faces": other_face},
        {"purpose": "curiosity"},
        {"requester": people.custodians[1].custodian.fingerprint},
        {"requested_at": NOW - 1},
        {"expires_at": NOW + 700 * DAY},
        {"nonce": "00" * 32},
        {"signature": bytes(64)},
    ]
    for change in changes:
        altered = RecoveryCase(replace(case.request, **change), people.policy, log)
        with pytest.raises(RecoveryRefusedError) as caught:
            altered.approve(approval, NOW + 10)
        assert caught.value.reason == "bad-request"
    resigned = RecoveryRequest.make(other_face, "x", people.requester, people.policy, now=NOW, expires_at=NOW + DAY)
    with pytest.raises(RecoveryRefusedError) as caught:
        RecoveryCase(resigned, people.policy, log).approve(approval, NOW + 10)
    assert caught.value.reason == "other-request"
    assert len(refused(log)) == len(changes) + 1
    assert case.status(NOW + 20).approved_by == ()


def test_a_requester_who_is_a_custodian_too_needs_others(people, log):
    ada = people.custodians[0]
    request = RecoveryRequest.make([FACE._replace(record=SOME_RECORD)], "p", ada, people.policy, now=NOW, expires_at=NOW + DAY)
    case = RecoveryCase(request, people.policy, log)
    case.submit(NOW)
    with pytest.raises(RecoveryRefusedError, match="nobody approves a request of their own"):
        approve(case, people, 0)
    approve(case, people, 1)
    with pytest.raises(RecoveryRefusedError, match="1 of 2"):
        case.release(NOW + 100)
    case.deny(Decision.make(request, ada, "deny", now=NOW + 170), NOW + 170)  # withdrawing it is allowed


def test_only_people_of_the_policy_may_ask_or_approve(case, people, log):
    stranger = CustodianKey.create("Mallory")
    faces = [FaceRef("a", "b", "c", 0, SOME_RECORD)]
    with pytest.raises(MisuseError, match="Mallory is not in the custody policy"):
        RecoveryRequest.make(faces, "p", stranger, people.policy, now=NOW, expires_at=NOW + 1)
    for key in (stranger, people.requester):
        with pytest.raises(RecoveryRefusedError, match="not a custodian"):
            case.approve(Decision.make(case.request, key, "approve", now=NOW + 1), NOW + 1)
    other_policy = CustodyPolicy(1, (stranger.custodian,), (people.requester.custodian,))
    with pytest.raises(RecoveryRefusedError, match="another custody policy"):
        RecoveryCase(case.request, other_policy, log).release(NOW + 5)


def test_an_approval_that_the_log_keeper_invented_does_not_count(case, people, log, store, recipient_key, faces):
    approve(case, people, 0)
    real = next(event for _, event in log.events('"kind":"recovery approved"'))
    fingerprint = people.custodians[1].custodian.fingerprint
    forged = AuditEvent("recovery approved", NOW + 70, {**real.facts, "custodian": fingerprint})
    log.append([forged, AuditEvent(real.kind, NOW + 70, real.facts)])
    assert case.status(NOW + 80).approved_by == (people.custodians[0].custodian.fingerprint,)
    with pytest.raises(RecoveryRefusedError):
        release_faces(case, log, store, recipient_key, NOW + 100)


@pytest.mark.parametrize(
    ("face", "error"),
    [
        (FaceRef("faces", "shard-000.tar", "img00001", 9), UnknownFaceError),
        (FaceRef("faces", "shard-000.tar", "nobody", 0), UnknownFaceError),
    ],
)
def test_a_face_that_is_not_on_record_fails_before_the_release(people, log, store, recipient_key, faces, face, error):
    case = RecoveryCase(ask(people, face), people.policy, log)
    case.submit(NOW)
    approve(case, people, 0, 1)
    with pytest.raises(error):
        release_faces(case, log, store, recipient_key, NOW + 100)
    assert kinds(log, case)[-1] == "recovery failed"
    assert case.status(NOW + 101).state == "approved"  # not used up


def test_a_wrong_recipient_key_fails_with_a_clear_error_and_a_logged_attempt(case, people, log, store, recipient_key, faces):
    approve(case, people, 0, 1)
    with pytest.raises(WrongRecipientError, match="this key is"):
        release_faces(case, log, store, RecipientKey.generate(), NOW + 100)
    failed = list(log.events('"kind":"recovery failed"'))[-1][1]
    assert failed.facts["reason"] == "WrongRecipientError"
    release_faces(case, log, store, recipient_key, NOW + 200)  # the right key still may


def test_a_key_file_of_another_dataset_fails_with_a_clear_error_and_a_logged_attempt(
    case, people, log, store, recipient_key, faces
):
    other = ShardContext("other", "shard-000.tar", CONFIG)
    foreign = build_key_file(other, [seal_part(other, [recipient_key.recipient], make_faces(3, 2))])
    store.put("faces", "shard-000.tar", foreign)
    approve(case, people, 0, 1)
    with pytest.raises(KeyFileError, match=r"really that of shard-000\.tar of dataset other"):
        release_faces(case, log, store, recipient_key, NOW + 100)
    assert kinds(log, case)[-1] == "recovery failed"


def test_a_key_file_that_is_not_the_logged_one_is_not_opened(case, people, log, store, recipient_key, faces):
    store.put(
        "faces", "shard-000.tar", build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient_key.recipient], make_faces(3, 2))])
    )
    approve(case, people, 0, 1)
    with pytest.raises(KeyFileError, match="not the one the audit log names"):
        release_faces(case, log, store, recipient_key, NOW + 100)


def test_a_key_file_that_this_log_never_heard_of_is_not_opened(people, log, store, recipient_key):
    store.put(
        "faces", "shard-000.tar", build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient_key.recipient], make_faces(3, 2))])
    )
    case = RecoveryCase(ask(people, store=store), people.policy, log)
    case.submit(NOW)
    approve(case, people, 0, 1)
    with pytest.raises(KeyFileError, match="in no entry of the audit log"):
        release_faces(case, log, store, recipient_key, NOW + 100)
    assert kinds(log, case)[-1] == "recovery failed"


def test_a_record_that_does_not_open_uses_the_case_up_and_says_so(people, log, store, recipient_key):
    part = seal_part(CONTEXT, [recipient_key.recipient], make_faces(2, 2))
    broken = replace(part, records=(*part.records[:3], part.records[3][:-1] + bytes([part.records[3][-1] ^ 1])))
    receipt = store.put("faces", "shard-000.tar", build_key_file(CONTEXT, [broken]))
    log.append([shard_committed(NOW, "run-1", CONTEXT, faces=4, key_file=receipt, data_sha256="ab" * 32)])
    case = RecoveryCase(ask(people, store=store), people.policy, log)
    case.submit(NOW)
    approve(case, people, 0, 1)
    with pytest.raises(RecordError, match="img00001 face 1"):
        release_faces(case, log, store, recipient_key, NOW + 100)
    assert kinds(log, case)[-2:] == ["recovery released", "recovery failed"]
    assert case.status(NOW + 101).state == "released"


def test_a_shredded_face_says_when_it_was_shredded(case, people, log, store, recipient_key, faces):
    old = store.get("faces", "shard-000.tar")
    data, _ = KeyFile.parse(old).without(lambda face: True, NOW + 50)
    receipt = store.put("faces", "shard-000.tar", data)
    log.append([shard_committed(NOW, "run-1", CONTEXT, faces=6, key_file=receipt, data_sha256="ab" * 32)])
    approve(case, people, 0, 1)
    with pytest.raises(ShreddedError, match="was shredded on 2026-09-21"):
        release_faces(case, log, store, recipient_key, NOW + 100)
    assert kinds(log, case)[-1] == "recovery failed"


def test_the_receipt_is_signed_and_says_who_got_what_on_whose_word(case, people, log, store, recipient_key, faces):
    approve(case, people, 0, 1)
    release, _ = release_faces(case, log, store, recipient_key, NOW + 100)
    note = make_receipt(log, case, release, [{"digest_matches": True, "psnr": 41.5}], NOW + 110)
    receipt = read_receipt(note, log.verifier)
    assert receipt["case"] == case.case
    assert receipt["approved_by"] == [people.custodians[number].custodian.fingerprint for number in (0, 1)]
    assert receipt["faces"][0] == {
        "dataset": "faces",
        "shard": "shard-000.tar",
        "sample": "img00001",
        "face_index": 1,
        "record": case.request.faces[0].record,
        "digest_matches": True,
        "psnr": 41.5,
    }
    assert receipt["log"]["release_entry"] == release.log_index
    with pytest.raises(AuditError, match="altered"):
        read_receipt(note.replace(b"41.5", b"99.9"), log.verifier)


def test_the_log_names_neither_the_sample_nor_the_purpose_nor_the_people(case, people, log, store, recipient_key, faces):
    approve(case, people, 0, 1)
    release_faces(case, log, store, recipient_key, NOW + 100)
    entries = b"".join(entry for _, entry in log.entries())
    for word in (b"img00001", b"court order", b"Ada L.", b"Ben M.", b"Rita O."):
        assert word not in entries


def test_recover_show_tells_where_a_case_stands(case, people):
    approve(case, people, 0)
    summary = case.summary(NOW + 100)
    assert (summary["state"], summary["missing_approvals"]) == ("requested", 1)
    assert summary["approved_by"][0].startswith("Ada")
    assert summary["requester"].startswith("Rita")
    json.dumps(summary)


@pytest.mark.parametrize(
    ("faces", "changes", "message"),
    [
        ([], {}, "1 to 10000 faces"),
        ([FaceRef("a", "b", "c", 0, SOME_RECORD)] * 2, {}, "each once"),
        ([FaceRef("a", "b", "c", 0)], {}, "sealed record by its digest"),
        ([FaceRef("a", "b", "c", 0, SOME_RECORD)], {"expires_at": NOW}, "expired when it is made"),
    ],
)
def test_a_request_that_could_never_be_granted_is_not_made(people, faces, changes, message):
    options = {"now": NOW, "expires_at": NOW + DAY} | changes
    with pytest.raises(MisuseError, match=message):
        RecoveryRequest.make(faces, "p", people.requester, people.policy, **options)

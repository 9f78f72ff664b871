"""`audit verify` on a finished run: clean is clean, and every kind of tampering is named."""

import shutil

import pytest

from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.manifest import decode_manifest
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import AuditError
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.sealing import seal_part
from diffpriv.keys.store import key_file_path
from tests.keys.helpers import CONFIG, NOW, Vault, make_faces


def check(vault: Vault, **more):
    return verify_log(vault.log, key_store=vault.store, recipient_key=vault.recipient_key, data=vault.data_digests(), **more)


def test_a_finished_run_verifies_whole(vault):
    report = check(vault, since=vault.log.checkpoint().note)
    assert report.problems == []
    assert report.notes == []
    assert report.checked == {
        "entries": report.size,
        "segments": 4,
        "key files": 4,
        "of them without a policy": 4,
        "published shards": 4,
    }
    assert report.problems == []
    rows = decode_manifest(vault.manifest.read_bytes())
    assert {(row.dataset, row.shard): row.sha256 for row in rows} == vault.data_digests()


def path_of(vault, shard):
    return vault.root / "keys" / key_file_path("faces", shard)


def test_a_missing_an_extra_and_a_swapped_key_file_are_named(vault):
    one, other = (path_of(vault, shard) for shard in vault.shards[:2])
    saved = one.read_bytes()
    one.unlink()
    assert any("shard-000.tar" in problem and "is missing" in problem for problem in check(vault).problems)
    shutil.copy(other, one)
    assert any("shard-000.tar" in problem and "swapped" in problem for problem in check(vault).problems)
    one.write_bytes(saved)
    shutil.copy(other, path_of(vault, "shard-900.tar"))
    (vault.root / "keys" / "notes.txt").write_text("x")
    problems = check(vault).problems
    assert any("shard-900.tar" in problem and "in no entry of the log" in problem for problem in problems)
    assert any("notes.txt" in problem for problem in problems)
    assert len(problems) == 2


def test_a_key_file_that_was_sealed_anew_is_not_the_one_of_the_log(vault):
    context = ShardContext("faces", "shard-001.tar", CONFIG)
    part = seal_part(context, [vault.recipient_key.recipient], make_faces(12, 2))
    vault.store.put("faces", "shard-001.tar", build_key_file(context, [part]))
    (problem,) = check(vault).problems
    assert "shard-001.tar" in problem
    assert "altered, or it is an old copy" in problem


def test_altered_missing_and_added_data_is_named(vault):
    first, second = (vault.root / "data" / shard for shard in vault.shards[:2])
    first.write_bytes(b"changed")
    second.rename(second.with_name("shard-555.tar"))
    problems = check(vault).problems
    assert any("shard-000.tar" in problem and "altered or swapped" in problem for problem in problems)
    assert any("shard-001.tar" in problem and "missing" in problem for problem in problems)
    assert any("shard-555.tar" in problem and "added" in problem for problem in problems)


def test_a_tier_that_keeps_no_keys_has_none_in_the_store(vault):
    context = ShardContext("faces", "scrub-000.tar", CONFIG)
    facts = {"run": "r", "dataset": "faces", "shard": "scrub-000.tar", "config_digest": CONFIG, "faces": 3}
    vault.log.append([AuditEvent("shard committed", NOW + 1000, {**facts, "key_file_sha256": None, "data_sha256": "ab" * 32})])
    report = verify_log(vault.log, key_store=vault.store)
    assert report.ok
    vault.store.put("faces", "scrub-000.tar", build_key_file(context, []))
    assert "no keys were kept" in verify_log(vault.log, key_store=vault.store).problems[0]


def test_a_required_witness_that_did_not_sign_is_missed(vault):
    witness = NoteKey.create("witness.test", witness=True)
    (problem,) = verify_log(vault.log, witnesses=[witness.verifier]).problems
    assert "lacks the cosignature of witness witness.test" in problem
    head = vault.log.checkpoint()
    vault.log.add_cosignature(witness.signature_line(head.text, NOW), witness.verifier)
    report = verify_log(vault.log, witnesses=[witness.verifier])
    assert report.ok
    assert report.witnesses == [("witness.test", NOW)]
    stale = witness.signature_line(b"log.test/audit\n1\n" + b"A" * 43 + b"=\n", NOW)
    with pytest.raises(AuditError):
        vault.log.add_cosignature(stale, witness.verifier)


def test_a_release_that_the_log_does_not_justify_is_a_finding(vault):
    case = "ca" * 32
    events = [
        AuditEvent("recovery released", NOW + 1000, {"case": "bb" * 32, "faces": 1}),
        AuditEvent(
            "recovery requested",
            NOW + 1000,
            {"case": case, "requester": "r", "quorum": 2, "policy": "p", "faces": 1, "expires_at": "2030-01-01T00:00:00Z"},
        ),
        AuditEvent("recovery approved", NOW + 1000, {"case": case, "custodian": "a", "approval": {}}),
        AuditEvent("recovery released", NOW + 1000, {"case": case, "faces": 1}),
        AuditEvent("recovery released", NOW + 1000, {"case": case, "faces": 1}),
    ]
    vault.log.append(events)
    problems = verify_log(vault.log).problems
    assert any("never requested" in problem for problem in problems)
    assert any("released with 1 of 2 approvals" in problem for problem in problems)
    assert any("the case was released before" in problem for problem in problems)


def test_a_damaged_record_inside_an_intact_log_is_named_when_records_are_opened(vault):
    """A worker that sealed rubbish and logged it: only opening finds out."""
    context = ShardContext("faces", "shard-001.tar", CONFIG)
    part = seal_part(context, [vault.recipient_key.recipient], make_faces(3))
    broken = part.records[1][:-1] + bytes([part.records[1][-1] ^ 1])
    data = build_key_file(context, [type(part)(**{**vars(part), "records": (part.records[0], broken, part.records[2])})])
    receipt = vault.store.put("faces", "shard-001.tar", data)
    facts = {"run": "r", "dataset": "faces", "shard": "shard-001.tar", "config_digest": CONFIG, "faces": 3}
    digest = vault.data_digests()["faces", "shard-001.tar"]
    facts |= {"key_file_sha256": receipt.sha256, "data_sha256": digest}
    vault.log.append([AuditEvent("shard committed", NOW + 1000, facts)])
    assert verify_log(vault.log, key_store=vault.store).ok
    (problem,) = check(vault).problems
    assert "img00001 face 0 in shard-001.tar" in problem
    assert KeyFile.parse(data).faces()[1] == ("img00001", 0)

"""What an outsider can check without the log, and what a witness refuses to sign."""

import json

import pytest

from diffpriv.keys.audit.events import run_started
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.proofs import (
    check_consistency,
    check_inclusion,
    prove_consistency,
    prove_inclusion,
    witness,
    witness_mailed,
)
from diffpriv.keys.audit.show import event_row, event_text, select_events
from diffpriv.keys.audit.tiles import tile_path
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.errors import AuditError, MisuseError
from diffpriv.keys.notes import NoteKey
from tests.keys.helpers import CONFIG, NOW


def started(count, first=0):
    return [run_started(NOW + number, f"run-{number}", "faces", CONFIG) for number in range(first, first + count)]


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
def test_any_entry_can_be_proven_to_who_holds_only_the_public_key(log, size):
    log.append(started(size))
    for index in {0, size // 2, size - 1}:
        proof = prove_inclusion(log, index)
        assert proof.startswith(b"c2sp.org/tlog-proof@v1\n")
        proven = check_inclusion(proof, log.verifier)
        assert (proven.index, proven.event.facts["run"], proven.checkpoint.size) == (index, f"run-{index}", size)
    with pytest.raises(AuditError, match=f"entry {size} is not in a log of {size}"):
        prove_inclusion(log, size)


def test_an_altered_inclusion_proof_proves_nothing(log):
    log.append(started(300))
    proof = prove_inclusion(log, 41)
    for position in range(len(proof)):
        altered = proof[:position] + bytes([proof[position] ^ 1]) + proof[position + 1 :]
        with pytest.raises(AuditError):
            check_inclusion(altered, log.verifier)


def test_no_proof_is_made_from_a_damaged_log(log):
    log.append(started(300))
    path = tile_path(0, 0)
    data = log.location.read(path)
    log.location.write(path, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(AuditError, match="does not lead"):
        prove_inclusion(log, 41)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (200, 300), (256, 512), (300, 300)])
def test_growth_can_be_proven_between_two_checkpoints(log, old, new):
    log.append(started(old))
    earlier = log.checkpoint().note
    log.append(started(new - old, old))
    proof = prove_consistency(log, earlier)
    first, second = check_consistency(proof, log.verifier)
    assert (first.size, second.size) == (old, new)
    body = json.loads(proof)
    body["proof"] = [*body["proof"], "A" * 43 + "="]
    with pytest.raises(AuditError, match="rewritten"):
        check_consistency(json.dumps(body).encode(), log.verifier)
    with pytest.raises(AuditError, match="not a consistency proof"):
        check_consistency(b"{}", log.verifier)


def test_a_witness_signs_growth_and_refuses_a_rewritten_or_shortened_log(log, log_key, tmp_path):
    key = NoteKey.create("witness.test", witness=True)
    memory = tmp_path / "witness.json"
    for first in (0, 100, 300):
        log.append(started(100, first))
        log.add_cosignature(witness(log, key, memory, now=NOW + first), key.verifier)
        assert verify_log(log, witnesses=[key.verifier]).ok
    assert log.checkpoint([key.verifier]).witnesses == (("witness.test", NOW + 300),)

    forged = AuditLog(tmp_path / "forged", log_key)
    forged.append([*started(50), *started(400, 5000)])
    with pytest.raises(AuditError, match="past was rewritten"):
        witness(forged, key, memory, now=NOW)
    short = AuditLog(tmp_path / "short", log_key)
    short.append(started(100))
    with pytest.raises(AuditError, match="cut back"):
        witness(short, key, memory, now=NOW)
    memory.write_text("{")
    with pytest.raises(AuditError, match="not replaced"):
        witness(log, key, memory, now=NOW)
    with pytest.raises(MisuseError, match="witness key"):
        witness(log, log_key, tmp_path / "new.json", now=NOW)


def test_a_witness_without_the_log_cosigns_mailed_growth_and_refuses_the_rest(log, log_key, tmp_path):
    key, memory = NoteKey.create("witness.test", witness=True), tmp_path / "witness.json"

    def cosigned(mailed):
        log.add_cosignature(witness_mailed(mailed, log.verifier, key, memory, now=NOW), key.verifier)

    log.append(started(100))
    first = log.checkpoint().note
    cosigned(first)
    log.append(started(50, 100))
    second = log.checkpoint().note
    cosigned(prove_consistency(log, first))
    with pytest.raises(AuditError, match="cut back"):
        witness_mailed(first, log.verifier, key, memory, now=NOW)
    log.append(started(50, 150))
    with pytest.raises(AuditError, match="does not begin at the head of 150 entries"):
        cosigned(log.checkpoint().note)
    with pytest.raises(AuditError, match="does not begin at the head of 150 entries"):
        cosigned(prove_consistency(log, first))
    forged = AuditLog(tmp_path / "forged", log_key)
    forged.append([*started(100), *started(100, 5000)])
    proof = json.loads(prove_consistency(log, second)) | {"new": forged.checkpoint().note.decode()}
    with pytest.raises(AuditError, match="rewritten"):
        cosigned(json.dumps(proof).encode())
    cosigned(prove_consistency(log, second))
    with pytest.raises(MisuseError, match="witness key"):
        witness_mailed(second, log.verifier, log_key, memory, now=NOW)


def test_audit_show_finds_what_is_asked_for(vault):
    committed = select_events(vault.log, kinds=["shard committed"])
    assert [event.facts["shard"] for _, event in committed] == vault.shards
    assert len(select_events(vault.log, shard="shard-002.tar")) == 1
    assert len(select_events(vault.log, run="run-1", dataset="faces")) == 4 * 2 + 1
    assert len(select_events(vault.log, since=NOW + 100, until=NOW + 200)) == 101
    newest = select_events(vault.log, last=1)
    assert newest[0][1].kind == "run finished"
    assert select_events(vault.log, case="ab") == []
    with pytest.raises(MisuseError, match="'shard comitted' is no kind of event"):
        select_events(vault.log, kinds=["shard comitted"])
    index, event = committed[0]
    json.dumps(event_row(index, event))
    text = event_text(index, event)
    assert text[2] == "shard committed"
    assert "shard=shard-000.tar" in text[3]

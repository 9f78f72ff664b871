"""Signed notes and checkpoints against C2SP's and Go's published vectors."""

import base64
import json
from pathlib import Path

import pytest

from diffpriv.keys.audit.checkpoint import open_checkpoint, sign_checkpoint
from diffpriv.keys.errors import AuditError, MisuseError, PassphraseError
from diffpriv.keys.notes import NoteKey, NoteVerifier, open_json, open_note, sign_json, sign_note

VECTORS = json.loads((Path(__file__).parent / "vectors" / "c2sp_signed_note.json").read_text())


@pytest.mark.parametrize("case", VECTORS["notes"], ids=lambda case: case["vkey"].split("+")[0])
def test_published_notes_open(case):
    verifier = NoteVerifier.parse(case["vkey"])
    assert verifier.vkey == case["vkey"]
    text, signed = open_note(case["note"].encode(), [verifier])
    assert case["vkey"] in signed
    if "signing_key" in case:
        name, _, encoded = case["signing_key"].removeprefix("PRIVATE+KEY+").split("+", 2)
        key = NoteKey(base64.b64decode(encoded)[1:], name)
        assert key.verifier == verifier
        assert sign_note(text, key) == case["note"].encode()


def test_a_published_checkpoint_with_its_witness_opens():
    case = VECTORS["checkpoint"]
    log, witness = NoteVerifier.parse(case["log"]), NoteVerifier.parse(case["witness"])
    checkpoint = open_checkpoint(case["note"].encode(), log, [witness])
    assert (checkpoint.size, base64.b64encode(checkpoint.root).decode()) == (case["size"], case["root"])
    assert checkpoint.witnesses == ((witness.name, case["witnessed_at"]),)
    with pytest.raises(AuditError, match="its text was altered"):
        open_checkpoint(case["note"].replace("1432088532", "1432088533").encode(), log, [witness])


def test_every_flipped_bit_of_a_signed_checkpoint_is_found(log_key):
    witness = NoteKey.create("witness.test", witness=True)
    note = sign_checkpoint(log_key, 12, bytes(range(32)))
    checkpoint = open_checkpoint(note, log_key.verifier)
    note += witness.signature_line(checkpoint.text, 1_790_000_000)
    both = open_checkpoint(note, log_key.verifier, [witness.verifier])
    assert both.witnesses == (("witness.test", 1_790_000_000),)
    for position in range(len(note)):
        for bit in range(8):
            altered = bytearray(note)
            altered[position] ^= 1 << bit
            try:
                found = open_checkpoint(bytes(altered), log_key.verifier, [witness.verifier])
            except AuditError:
                continue
            # A signature line whose name or key ID changed is that of a stranger, to be passed over: never counted.
            assert (found.size, found.root) == (12, bytes(range(32)))
            assert found.witnesses == ()


@pytest.mark.parametrize(
    "vkey", ["", "a+b", "name+00000000+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "na me+530d903a+AekyeRrm", "x+00+!!"]
)
def test_malformed_verifier_keys_are_refused(vkey):
    with pytest.raises(AuditError, match="not a verifier key"):
        NoteVerifier.parse(vkey)


def test_a_checkpoint_of_another_log_is_refused(log_key):
    other = NoteKey.create("other.test")
    with pytest.raises(AuditError, match="not signed by the log's key"):
        open_checkpoint(sign_checkpoint(other, 1, bytes(32)), log_key.verifier)
    foreign_origin = sign_note(b"other.test\n1\n" + base64.b64encode(bytes(32)) + b"\n", log_key)
    with pytest.raises(AuditError, match="not one of the log"):
        open_checkpoint(foreign_origin, log_key.verifier)


def test_a_signed_document_is_never_taken_for_a_checkpoint_or_another_document(log_key):
    document = sign_json(log_key, "diffpriv recovery receipt", {"a": 1})
    assert open_json(document, "diffpriv recovery receipt", log_key.verifier, what="it") == {"a": 1}
    with pytest.raises(AuditError):
        open_checkpoint(document, log_key.verifier)
    with pytest.raises(AuditError, match="not a diffpriv shredding receipt"):
        open_json(document, "diffpriv shredding receipt", log_key.verifier, what="it")
    with pytest.raises(AuditError):
        open_json(sign_checkpoint(log_key, 1, bytes(32)), "diffpriv recovery receipt", log_key.verifier, what="it")


def test_log_and_witness_keys_are_kept_in_files(tmp_path, log_key):
    log_key.save(tmp_path / "log.key")
    assert NoteKey.load(tmp_path / "log.key").same_as(log_key)
    witness = NoteKey.create("witness.test", witness=True)
    witness.save(tmp_path / "witness.key", "pw", iterations=1, lanes=1, memory_kib=64)
    assert NoteKey.load(tmp_path / "witness.key", "pw", witness=True).verifier == witness.verifier
    with pytest.raises(PassphraseError):
        NoteKey.load(tmp_path / "witness.key", "wrong", witness=True)
    with pytest.raises(MisuseError, match="no spaces"):
        NoteKey.create("two words")

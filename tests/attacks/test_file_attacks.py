"""Files made to hurt who reads them, by whoever mails a case, writes the key store or signs the log: refused in words."""

import json

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.merkle import leaf_hash
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.custodians import Custodian, CustodianKey, CustodyPolicy
from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.lockbox import unlock
from diffpriv.keys.recipients import Recipient
from diffpriv.keys.requests import Decision, RecoveryRequest
from tests.attacks.test_quorum_attacks import POLICY, World

DEEP = b"[" * 200_000
READERS = [RecoveryRequest.load, Decision.load, CustodyPolicy.load, Custodian.load, Recipient.load]


@pytest.mark.parametrize("load", READERS, ids=lambda one: one.__qualname__)
@pytest.mark.parametrize("data", [DEEP, b'{"format":' + DEEP, b"1" * 10_000, b"\xff", b"", b"null", b'"\\ud800"'])
def test_a_mailed_file_that_nests_without_end_or_is_no_text_is_refused_in_words(tmp_path, load, data):
    (tmp_path / "mailed.json").write_bytes(data)
    with pytest.raises(DiffPrivError):
        load(tmp_path / "mailed.json")


def test_a_key_file_of_a_person_that_nests_without_end_is_refused_in_words(tmp_path):
    (tmp_path / "person.key").write_bytes(DEEP)
    (tmp_path / "person.key").chmod(0o600)
    with pytest.raises(DiffPrivError):
        CustodianKey.load(tmp_path / "person.key", "x")
    with pytest.raises(DiffPrivError):
        unlock(DEEP, "custodian", "x")


def test_an_entry_that_nests_without_end_is_named_by_verify(tmp_path):
    """The log's key, and a hand-made entry: verify must not fall over what it is there to find."""
    world = World(tmp_path)
    entry = b'{"at":"2026-09-21T14:13:20Z","facts":' + b"[" * 30_000 + b"]" * 30_000 + b',"kind":"policy pinned"}'
    plain = b'{"at":' + b"[" * 30_000

    class Raw:
        at = 2_000_000_000

        def __init__(self, data):
            self.data = data

        def encode(self):
            return self.data

    world.log.append([Raw(entry), Raw(plain)])
    assert leaf_hash(entry)
    problems = verify_log(AuditLog(world.log.url, verifier=world.log.verifier), policies=[POLICY]).problems
    assert any("entry 2" in one and "not an audit event" in one for one in problems)
    assert any("entry 3" in one and "not an audit event" in one for one in problems)


def test_a_key_file_whose_lock_nests_without_end_is_refused_in_words(tmp_path):
    world = World(tmp_path)
    data = world.store.get("faces", "shard-000.tar")
    lock = json.dumps(world.key_file().locks[0].to_json()["custodians"][0]).encode()
    assert lock in data, "the lock lies in the file as JSON"
    with pytest.raises(DiffPrivError):
        KeyFile.parse(data.replace(lock, b"[" * len(lock)))

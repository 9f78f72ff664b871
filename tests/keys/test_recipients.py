"""Files that hold public and private keys: they open with the right passphrase, and say what is wrong otherwise."""

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from diffpriv.keys import lockbox
from diffpriv.keys.custodians import Custodian, CustodianKey, CustodyPolicy
from diffpriv.keys.errors import MisuseError, PassphraseError, RecipientError, RecordError
from diffpriv.keys.init import init_keys
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RSA_OAEP, Recipient, RecipientKey
from diffpriv.keys.secrets import ShardKey
from tests.keys.helpers import CHEAP_ARGON2


@pytest.fixture
def key_file(tmp_path: Path, recipient_key) -> Path:
    recipient_key.save(tmp_path / "recipient.key", "pass phrase", **CHEAP_ARGON2)
    return tmp_path / "recipient.key"


def test_a_private_key_file_opens_with_its_passphrase_and_only_with_it(key_file, recipient_key):
    assert RecipientKey.load(key_file, "pass phrase").same_as(recipient_key)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    for wrong in ("pass phrasE", "pass phrase ", ""):
        with pytest.raises(PassphraseError, match=r"recipient.key: the passphrase is wrong"):
            RecipientKey.load(key_file, wrong)
    with pytest.raises(PassphraseError, match="none was given"):
        RecipientKey.load(key_file, None)


def test_the_key_derivation_parameters_are_stored_and_can_be_raised(tmp_path, recipient_key):
    recipient_key.save(tmp_path / "k", "p", iterations=2, lanes=1, memory_kib=128)
    kdf = json.loads((tmp_path / "k").read_bytes())["kdf"]
    assert (kdf["name"], kdf["iterations"], kdf["lanes"], kdf["memory_kib"]) == ("argon2id", 2, 1, 128)
    assert RecipientKey.load(tmp_path / "k", "p").same_as(recipient_key)


def test_the_default_key_derivation_is_the_second_of_rfc_9106():
    kdf = json.loads(lockbox.lock("recipient", bytes(32), {"fingerprint": ""}, "p"))["kdf"]
    assert (kdf["iterations"], kdf["lanes"], kdf["memory_kib"]) == (3, 4, 65536)


def test_a_passphrase_counts_the_same_however_its_accents_are_typed(tmp_path, recipient_key):
    recipient_key.save(tmp_path / "k", "caf\u00e9", **CHEAP_ARGON2)
    assert RecipientKey.load(tmp_path / "k", "cafe\u0301").same_as(recipient_key)


def test_any_altered_field_of_a_private_key_file_is_found(key_file):
    body = json.loads(key_file.read_bytes())
    changes = {
        "kind": "custodian",
        "version": 2,
        "public": body["public"] | {"name": "someone else"},
        "kdf": body["kdf"] | {"iterations": 2},
        "nonce": "AAAAAAAAAAAAAAAA",
        "sealed": body["sealed"][:-8] + "AAAAAA==",
    }
    for field, value in changes.items():
        key_file.write_text(json.dumps(body | {field: value}))
        with pytest.raises(RecipientError, match=r"recipient\.key"):
            RecipientKey.load(key_file, "pass phrase")
    for hostile in ({"memory_kib": 2**40}, {"iterations": 10**9}, {"lanes": 0}, {"name": "md5"}, {"salt": "!"}):
        key_file.write_text(json.dumps(body | {"kdf": body["kdf"] | hostile}))
        with pytest.raises(RecipientError, match=r"recipient\.key"):
            RecipientKey.load(key_file, "pass phrase")
    key_file.write_text("not json")
    with pytest.raises(RecipientError, match="not a diffpriv private key file"):
        RecipientKey.load(key_file, "pass phrase")


def test_the_private_key_is_nowhere_in_its_file_and_the_file_is_never_overwritten(key_file, recipient_key):
    assert recipient_key._material.hex() not in key_file.read_text()
    with pytest.raises(MisuseError, match="never overwritten"):
        recipient_key.save(key_file, "other", **CHEAP_ARGON2)
    with pytest.raises(MisuseError, match="empty passphrase"):
        recipient_key.save(key_file.with_name("new"), "", **CHEAP_ARGON2)


def test_a_recipient_file_survives_a_round_trip_and_its_typos_are_found(tmp_path, recipient_key):
    path = tmp_path / "recipient.json"
    recipient_key.recipient.save(path)
    assert Recipient.load(path) == recipient_key.recipient
    body = json.loads(path.read_text())
    for field, value in {
        "public": "AAAA" + body["public"][4:],
        "fingerprint": "0" * 32,
        "kind": "rot13",
        "format": "x",
    }.items():
        path.write_text(json.dumps(body | {field: value}))
        with pytest.raises(RecipientError, match=r"recipient\.json"):
            Recipient.load(path)
    path.write_text("{")
    with pytest.raises(RecipientError, match="not a recipient file"):
        Recipient.load(path)
    with pytest.raises(RecipientError, match=r"can't be read.*keys init"):
        Recipient.load(tmp_path / "missing.json")


def test_a_wrapped_shard_key_opens_for_its_context_only(recipient_key):
    key = ShardKey.generate()
    wrapped = recipient_key.recipient.wrap(key, b"context")
    assert len(wrapped) == 1168
    assert recipient_key.unwrap(wrapped, b"context").same_as(key)
    for info, data in [(b"other", wrapped), (b"context", wrapped[:-1]), (b"context", b""), (b"context", bytes(1168))]:
        with pytest.raises(RecordError):
            recipient_key.unwrap(data, info)


def test_a_short_rsa_key_is_no_recipient():
    weak = rsa.generate_private_key(65537, 2048).public_key()
    der = weak.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(RecipientError, match="at least 3072 bits"):
        Recipient(RSA_OAEP, der, "weak")


def test_keys_init_makes_one_of_everything_and_never_overwrites(tmp_path):
    made = init_keys(tmp_path / "dir", "pw", **CHEAP_ARGON2)
    assert RecipientKey.load(made.recipient_key, "pw").recipient == Recipient.load(made.recipient)
    assert NoteKey.load(made.log_key).verifier.vkey == made.log_vkey.read_text().strip()
    policy = CustodyPolicy.load(made.policy)
    assert policy.quorum == 2
    assert {person.name for person in policy.custodians} == set(made.custodians)
    for name, path in made.custodians.items():
        key = CustodianKey.load(path, "pw")
        assert key.custodian == Custodian.load(path.with_suffix(".json"))
        assert key.name == name
    for private in [made.recipient_key, made.log_key, *made.custodians.values(), *made.requesters.values()]:
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    with pytest.raises(MisuseError, match="never overwritten"):
        init_keys(tmp_path / "dir", "pw", **CHEAP_ARGON2)


def test_a_policy_names_each_person_once_and_a_quorum_that_can_be_reached():
    ada, ben = (CustodianKey.create(name).custodian for name in ("Ada", "Ben"))
    with pytest.raises(MisuseError, match="can't be reached"):
        CustodyPolicy(3, (ada, ben))
    with pytest.raises(MisuseError, match="same name twice"):
        CustodyPolicy(1, (ada,), (CustodianKey.create("Ada").custodian,))
    with pytest.raises(MisuseError, match="same fingerprint twice"):
        CustodyPolicy(1, (ada, Custodian("Alias", ada.public)))
    policy = CustodyPolicy(1, (ada, ben))
    assert CustodyPolicy.from_json(policy.to_json()) == policy
    assert policy.digest != CustodyPolicy(2, (ada, ben)).digest


def test_a_key_of_one_kind_is_not_taken_for_another(tmp_path):
    CustodianKey(os.urandom(32), "Ada").save(tmp_path / "ada.key", "pw", **CHEAP_ARGON2)
    with pytest.raises(RecipientError, match="holds a custodian key, and a recipient key is needed"):
        RecipientKey.load(tmp_path / "ada.key", "pw")

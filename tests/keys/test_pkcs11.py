"""A recipient in a PKCS#11 token, against SoftHSM2."""

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import MisuseError, PassphraseError, RecipientError, RecordError
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.pkcs11 import TokenRecipientKey, generate_token_key, token_recipient
from diffpriv.keys.recipients import Recipient
from diffpriv.keys.rotation import rotate
from diffpriv.keys.sealing import seal_part
from diffpriv.keys.secrets import ShardKey
from tests.keys.elsewhere import check_share_passes
from tests.keys.helpers import CONFIG, Vault, make_faces

_PLACES = ("softhsm/libsofthsm2.so", "*/softhsm/libsofthsm2.so")  # Debian's, with and without the architecture
MODULE = next((str(path) for place in _PLACES for path in Path("/usr/lib").glob(place)), "")
pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
pytestmark = [
    pytest.mark.skipif(
        not MODULE or not shutil.which("softhsm2-util"), reason="SoftHSM2 is not installed (apt-get install softhsm2)"
    ),
]
CONTEXT = ShardContext("faces", "shard-000.tar", CONFIG)
PIN = "493817"


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A fresh token with one RSA key, made by the product itself."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "vault", "--pin", PIN, "--so-pin", "11112222"],
        check=True,
        capture_output=True,
    )
    generate_token_key(MODULE, "vault", "recovery", PIN)
    return "vault"


@pytest.fixture(scope="module")
def recipient(token):
    return token_recipient(MODULE, token, "recovery", PIN, name="HSM")


def test_what_is_sealed_to_a_token_opens_with_the_token(recipient, tmp_path):
    recipient.save(tmp_path / "hsm.json")
    loaded = Recipient.load(tmp_path / "hsm.json")
    faces = make_faces(3)
    file = KeyFile.parse(build_key_file(CONTEXT, [seal_part(CONTEXT, [loaded], faces)]))
    key = TokenRecipientKey(loaded, MODULE, PIN)
    assert file.open_face("img00001", 0, key).key.same_as(faces[1].key)
    assert file.check_all(key) == 3


def test_a_custodians_shares_may_be_sealed_to_a_token(recipient, tmp_path):
    check_share_passes(tmp_path, recipient, TokenRecipientKey(recipient, MODULE, PIN))


def test_a_token_does_not_open_another_context_or_an_altered_key(recipient):
    key, shard_key = TokenRecipientKey(recipient, MODULE, PIN), ShardKey.generate()
    wrapped = recipient.wrap(shard_key, b"this shard")
    assert key.unwrap(wrapped, b"this shard").same_as(shard_key)
    with pytest.raises(RecordError, match="another dataset, shard or part"):
        key.unwrap(wrapped, b"that shard")
    with pytest.raises(RecordError):
        key.unwrap(wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"this shard")


def test_a_dataset_moves_from_a_passphrase_file_to_a_token(recipient, vault: Vault):
    old = vault.recipient_key
    rotate(vault.store, vault.log, add=[recipient], remove=[old.fingerprint], recipient_key=old, now=vault.log.newest())
    key = TokenRecipientKey(recipient, MODULE, PIN)
    assert verify_log(vault.log, key_store=vault.store, recipient_key=key).problems == []


def test_a_wrong_pin_token_label_or_library_is_named(recipient, token, recipient_key):
    with pytest.raises(PassphraseError, match="token vault refused the PIN"):
        TokenRecipientKey(recipient, MODULE, "000000").unwrap(bytes(384), b"")
    with pytest.raises(RecipientError, match="one token called nowhere"):
        token_recipient(MODULE, "nowhere", "recovery", PIN)
    with pytest.raises(RecipientError, match="one RSA key called missing"):
        token_recipient(MODULE, token, "missing", PIN)
    with pytest.raises(RecipientError, match="can't be loaded"):
        token_recipient("/nonexistent.so", token, "recovery", PIN)
    with pytest.raises(MisuseError, match="not a PKCS#11 key"):
        TokenRecipientKey(recipient_key.recipient, MODULE, PIN)


def test_the_pin_is_neither_shown_nor_pickled(recipient):
    key = TokenRecipientKey(recipient, MODULE, PIN)
    assert PIN not in repr(key)
    with pytest.raises(TypeError, match="refuses pickling"):
        pickle.dumps(key)

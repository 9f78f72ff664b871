"""Secrets stay inside their classes."""

import copy
import hmac
import logging
import os
import pickle

import pytest

from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import ShardContext, canonical
from diffpriv.keys.custodians import CustodianKey
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.sealing import FaceSecret
from diffpriv.keys.secrets import FaceKey, ShardKey
from diffpriv.keys.sources import DerivedKeySource, RandomKeySource
from diffpriv.keys.splitting import read_share, split

SECRETS = [FaceKey.generate(), ShardKey.generate(), RecipientKey.generate(), CustodianKey.generate(), NoteKey.generate()]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: type(secret).__name__)
@pytest.mark.parametrize(
    "leak",
    [
        repr,
        str,
        format,
        bytes,
        list,
        len,
        hash,
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        lambda one: f"{one}",
        lambda one: one == one,  # noqa: PLR0124
        lambda one: one != b"",
        lambda one: one < one,  # noqa: PLR0124
    ],
)
def test_a_secret_refuses_to_be_printed_copied_pickled_or_compared(secret, leak):
    with pytest.raises(TypeError, match="refuses"):
        leak(secret)


def test_a_secret_that_is_logged_by_mistake_does_not_reach_the_log(caplog):
    key = FaceKey.generate()
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        logging.getLogger("x").error("key %s", key)
    except TypeError:
        pass
    finally:
        logging.raiseExceptions = before
    assert reveal(key).hex() not in caplog.text


def test_the_error_for_a_malformed_key_does_not_show_it():
    with pytest.raises(ValueError, match="exactly 32 bytes") as caught:
        FaceKey.from_bytes(b"almost a secret")
    assert "almost" not in str(caught.value)


def test_secrets_compare_with_same_as_only_within_their_class():
    key = FaceKey.from_bytes(bytes(32))
    assert key.same_as(FaceKey.from_bytes(bytes(32)))
    assert not key.same_as(FaceKey.from_bytes(bytes(31) + b"\x01"))
    assert not key.same_as(ShardKey.from_bytes(bytes(32)))


def test_a_face_secret_neither_shows_nor_pickles_its_key_and_payload():
    face = FaceSecret("img", 0, FaceKey.generate(), b"payload-that-is-secret")
    assert "payload-that" not in repr(face)
    assert "key" not in repr(face)
    with pytest.raises(TypeError, match="refuses"):
        pickle.dumps(face)


def test_derived_labels_are_independent_and_stable():
    key = FaceKey.from_bytes(bytes(range(32)))
    assert key.derive("a") != key.derive("b")
    assert len(key.derive("a", 100)) == 100
    # RFC 5869 by hand (empty salt, one block): a stored face must stay derivable for ever.
    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    assert key.derive("diffpriv/v1/transform") == hmac.digest(extracted, b"diffpriv/v1/transform\x01", "sha256")


def test_random_keys_differ_each_time_and_derived_ones_never():
    context = ShardContext("d", "s", "ab" * 32)
    other_config = ShardContext("d", "s", "cd" * 32)
    assert not RandomKeySource().face_key(context, "x", 0).same_as(RandomKeySource().face_key(context, "x", 0))
    source = DerivedKeySource(b"r" * 32)
    assert source.face_key(context, "x", 0).same_as(DerivedKeySource(b"r" * 32).face_key(other_config, "x", 0))
    assert not source.face_key(context, "x", 0).same_as(source.face_key(context, "x", 1))
    assert not source.face_key(context, "x", 0).same_as(source.face_key(ShardContext("d", "t", "ab" * 32), "x", 0))
    assert "rrr" not in repr(source)
    with pytest.raises(TypeError, match="refuses pickling"):
        pickle.dumps(source)


def test_no_two_contexts_share_their_bytes():
    assert canonical("l", b"ab", b"c") != canonical("l", b"a", b"bc")
    one, other = ShardContext("a", "bc", "ab" * 32), ShardContext("ab", "c", "ab" * 32)
    assert one.canonical_bytes != other.canonical_bytes
    assert one.face("x", 1).canonical_bytes != one.face("x", 2).canonical_bytes
    assert one.face("", 0).canonical_bytes != one.canonical_bytes
    with pytest.raises(ValueError, match="SHA-256"):
        ShardContext("a", "b", "not a digest")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_private_key_that_others_may_read_or_change_is_not_used(tmp_path, mode):
    """Of every kind: recipient, custodian, log, share."""
    recipient, path = RecipientKey.generate(), tmp_path / "key"
    recipient.save(path, None)
    CustodianKey.create("Ada").save(tmp_path / "ada.key", "x", iterations=1, lanes=1, memory_kib=64)
    NoteKey.create("log.test").save(tmp_path / "log.key")
    split(recipient, 2, 3)[0].save(tmp_path / "share")
    loads = {
        path: lambda: RecipientKey.load(path, None),
        tmp_path / "ada.key": lambda: CustodianKey.load(tmp_path / "ada.key", "x"),
        tmp_path / "log.key": lambda: NoteKey.load(tmp_path / "log.key"),
        tmp_path / "share": lambda: read_share(tmp_path / "share"),
    }
    for file, load in loads.items():
        load()
        file.chmod(mode)
        with pytest.raises(MisuseError, match="others may read or change") as caught:
            load()
        assert caught.value.advice == f"chmod 600 {file}"

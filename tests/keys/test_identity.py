"""The identity root: one identity per person and release, opened from its locked copy by recipients only."""

import os
from pathlib import Path

import pytest

from diffpriv.keys.errors import DiffPrivError, KeyFileError, MisuseError, WrongRecipientError
from diffpriv.keys.identity import (
    IdentityRoot,
    identity_root_path,
    open_identity_root,
    rewrap_identity_root,
    store_identity_root,
)
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.store import KeyStore


def test_an_identity_depends_on_root_dataset_and_person_and_on_nothing_else() -> None:
    root, other = IdentityRoot(bytes(range(32))), IdentityRoot(bytes(32))
    seeds = [root.identity_seed("a", "Ada"), root.identity_seed("a", "Eve"), root.identity_seed("aA", "da")]
    assert len({*seeds, other.identity_seed("a", "Ada")}) == 4
    assert root.identity_seed("a", "Ada") == IdentityRoot(bytes(range(32))).identity_seed("a", "Ada")
    assert root.id != other.id


def test_its_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    root, path = IdentityRoot.generate(), tmp_path / "root"
    root.save(path)
    assert IdentityRoot.load(path).same_as(root)
    with pytest.raises(MisuseError, match="never overwritten"):
        IdentityRoot.generate().save(path)
    os.chmod(path, 0o640)
    with pytest.raises(MisuseError, match="others may read"):
        IdentityRoot.load(path)


def test_the_locked_copy_opens_for_its_recipients_and_no_stranger_is_seen_in_the_store(tmp_path: Path) -> None:
    store, root = KeyStore(tmp_path / "store"), IdentityRoot.generate()
    one, two, three = (RecipientKey(os.urandom(32), name) for name in ("one", "two", "three"))
    store_identity_root(store, "faces", root, [one.recipient])
    assert open_identity_root(store, "faces", one).same_as(root)
    with pytest.raises(WrongRecipientError):
        open_identity_root(store, "faces", two)
    with pytest.raises(MisuseError, match="nobody could open"):
        rewrap_identity_root(store, "faces", [], [one.fingerprint], None)
    assert rewrap_identity_root(store, "faces", [two.recipient], [one.fingerprint], one)
    assert open_identity_root(store, "faces", two).same_as(root)
    with pytest.raises(WrongRecipientError):
        open_identity_root(store, "faces", one)
    assert store.unexpected() == []
    store.location.write("other/identity-root.json", store.location.read(identity_root_path("faces")))
    with pytest.raises(DiffPrivError):
        open_identity_root(store, "other", two)
    with pytest.raises(KeyFileError, match="no identity root"):
        open_identity_root(store, "nobody", three)

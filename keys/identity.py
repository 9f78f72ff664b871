"""The identity root: one secret per release from which each person's synthetic identity is drawn, never from the name alone.

    identity key = HKDF-SHA256(root, no salt, info = canonical("diffpriv/v1/identity", dataset, person)), 32 bytes
so one person has one identity in the whole release, whichever worker, shard, run or resumed run draws it, and without the
root nobody can tell whose name a synthetic face belongs to, not by trying all names either. Another release has another root,
and its identities cannot be linked with this one's. Whoever holds the root can link: the photos of the release (which its
labels do anyway), and a name to its synthetic face by drawing it again.

The root is a private key file (keys/lockbox.py, kind "identity root", no passphrase, mode 0600) that the job's machines read;
it travels through no engine and lies in no DST. So that it is not lost with them, the job leaves a copy in the key store,
<dataset>/identity-root.json, locked to the recipients like the shard keys:
    {"format": "diffpriv identity root", "version": 1, "dataset", "id", "recipients": [[fingerprint, kind], ...],
     "wraps": [base64 per recipient]}
with wrap context canonical("diffpriv/v1/identity-root", dataset, id), id = first 16 bytes, hex, of
SHA-256("diffpriv/v1/identity-root-id" || root).
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from diffpriv.keys import lockbox
from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import canonical
from diffpriv.keys.errors import KeyFileError, MisuseError, WrongRecipientError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.recipients import Recipient, Unwrapper
from diffpriv.keys.secrets import SecretBytes, ShardKey
from diffpriv.keys.store import IDENTITY_ROOT, KeyStore, encode_name

_KIND = "identity root"
_FORMAT = "diffpriv identity root"


class IdentityRoot(SecretBytes):
    """32 secret bytes; see the top of this file."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Public: names the root without telling it."""
        return hashlib.sha256(b"diffpriv/v1/identity-root-id" + reveal(self)).hexdigest()[:32]

    def identity_seed(self, dataset: str, person: str) -> bytes:
        """The identity key of one person of a dataset, 32 secret bytes."""
        info = canonical("diffpriv/v1/identity", dataset.encode(), person.encode("utf-8", "surrogatepass"))
        return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(reveal(self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Raises: MisuseError if the file exists."""
        data = lockbox.lock(_KIND, reveal(self), {"fingerprint": self.id}, None)
        lockbox.write_private(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "IdentityRoot":
        """Raises: MisuseError if the file cannot be read, or others may read it; RecipientError if it is none."""
        try:
            data = lockbox.read_private(path)
        except OSError as error:
            raise MisuseError(
                f"the identity root {os.fspath(path)} can't be read: {error.strerror}.",
                advice='Make one with "diffpriv keys identity-root FILE"; every machine of the job needs it there.',
            ) from error
        secret, _ = lockbox.unlock(data, _KIND, None, name=os.fspath(path))
        return cls(secret)


def identity_root_path(dataset: str) -> str:
    """Where the key store keeps a dataset's sealed identity root."""
    return f"{encode_name(dataset)}/{IDENTITY_ROOT}"


def store_identity_root(store: KeyStore, dataset: str, root: IdentityRoot, recipients: Sequence[Recipient]) -> None:
    """Leave the locked copy; durable when this returns. A copy that is there for the same root and recipients stays."""
    path = identity_root_path(dataset)
    wanted = [[one.fingerprint, one.kind] for one in recipients]
    there = store.location.read_if_there(path)
    if there is not None:
        body = _parse(there, path)
        if body["id"] == root.id and body["recipients"] == wanted:
            return
    info = _context(dataset, root.id)
    key = ShardKey(reveal(root))
    body = {
        "format": _FORMAT,
        "version": 1,
        "dataset": dataset,
        "id": root.id,
        "recipients": wanted,
        "wraps": [base64.b64encode(one.wrap(key, info)).decode() for one in recipients],
    }
    store.location.write(path, canonical_json(body) + b"\n")


def open_identity_root(store: KeyStore, dataset: str, recipient_key: Unwrapper) -> IdentityRoot:
    """The root from its locked copy.

    Raises:
        KeyFileError: there is no copy, or it is damaged. WrongRecipientError: it is locked to others.
        RecordError: it was locked for another dataset, or altered.
    """
    path = identity_root_path(dataset)
    data = store.location.read_if_there(path)
    if data is None:
        raise KeyFileError(f"the key store has no identity root of {dataset}.")
    body = _parse(data, path)
    for (fingerprint, _), wrap in zip(body["recipients"], body["wraps"], strict=True):
        if fingerprint == recipient_key.fingerprint:
            key = recipient_key.unwrap(base64.b64decode(wrap), _context(dataset, body["id"]))
            root = IdentityRoot(reveal(key))
            if root.id != body["id"]:
                raise KeyFileError(f"{path} holds another root than it says.")
            return root
    holders = ", ".join(one[:8] for one, _ in body["recipients"])
    raise WrongRecipientError(f"{path} is locked to recipients {holders}; this key is {recipient_key.fingerprint[:8]}.")


def rewrap_identity_roots(
    store: KeyStore,
    add: Sequence[Recipient],
    remove: Sequence[str],
    recipient_key: Unwrapper | None,
    dataset: str | None = None,
) -> None:
    """`rewrap_identity_root` for every dataset of the store, or for one."""
    for one in sorted({name for name, _ in store.list(dataset)}):
        rewrap_identity_root(store, one, add, remove, recipient_key)


def rewrap_identity_root(
    store: KeyStore, dataset: str, add: Sequence[Recipient], remove: Sequence[str], recipient_key: Unwrapper | None
) -> bool:
    """Rotate the locked copy's recipients like those of key files; whether anything changed.

    Args:
        add: may hold recipients that it is locked to already. remove: fingerprints. recipient_key: needed to add one.
    Raises:
        MisuseError: nobody could open it any more, or one is to be added without a key that opens it now.
    """
    path = identity_root_path(dataset)
    data = store.location.read_if_there(path)
    if data is None:
        return False
    body = _parse(data, path)
    present = {fingerprint for fingerprint, _ in body["recipients"]}
    added = [one for one in add if one.fingerprint not in present]
    if not added and not present & set(remove):
        return False
    wraps = [pair for pair in zip(body["recipients"], body["wraps"], strict=True) if pair[0][0] not in remove]
    if added:
        if recipient_key is None:
            raise MisuseError(f"to lock {path} to another recipient, a key that opens it now is needed.")
        key = ShardKey(reveal(open_identity_root(store, dataset, recipient_key)))
        info = _context(dataset, body["id"])
        wraps += [([one.fingerprint, one.kind], base64.b64encode(one.wrap(key, info)).decode()) for one in added]
    if not wraps:
        raise MisuseError(f"nobody could open {path} any more.", advice="Add a recipient with the same command.")
    body |= {"recipients": [who for who, _ in wraps], "wraps": [wrap for _, wrap in wraps]}
    store.location.write(path, canonical_json(body) + b"\n")
    return True


def _context(dataset: str, root_id: str) -> bytes:
    return canonical("diffpriv/v1/identity-root", dataset.encode(), bytes.fromhex(root_id))


def _parse(data: bytes, path: str) -> dict[str, Any]:
    try:
        body = parse_json(data)
        if body["format"] != _FORMAT or body["version"] != 1 or len(body["wraps"]) != len(body["recipients"]):
            raise ValueError
        bytes.fromhex(body["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise KeyFileError(f"{path} is not a {_FORMAT} file of version 1.") from error
    return dict(body)

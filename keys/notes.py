"""Signed notes and the keys that sign them: C2SP signed-note and tlog-cosignature (https://c2sp.org).

Note:        <text, ends with \\n> \\n, then per signature: "— " <name> " " base64(key ID (4) || signature) \\n
Key ID:      SHA-256(name || 0x0A || type || public key)[:4]; verifier key: <name>+<key ID, hex>+base64(type || public key)
Type 0x01:   Ed25519 over the text.
Type 0x04:   cosignature/v1: 8 bytes Unix time, big-endian || Ed25519 over "cosignature/v1\\ntime <time>\\n" || text.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from diffpriv.keys import lockbox
from diffpriv.keys.cleartext import reveal
from diffpriv.keys.errors import AuditError, MisuseError, RecipientError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.secrets import SecretBytes

ED25519, COSIGNATURE = 0x01, 0x04
ROLES = ("log", "release", "office", "witness")  # checkpoints, release manifests, receipts of recoveries, cosignatures
_NAME = re.compile(r"[^\s+]+")
_DASH = "— "


@dataclass(frozen=True)
class NoteVerifier:
    """The public half of a log's or a witness's key."""

    name: str
    type: int
    public: bytes  # 32 bytes, Ed25519

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_b64(bytes([self.type]) + self.public)}"

    @classmethod
    def parse(cls, vkey: str) -> "NoteVerifier":
        """Raises: AuditError for anything but a well-formed Ed25519 or cosignature verifier key."""
        try:
            name, key_id, encoded = vkey.strip().split("+", 2)
            blob = base64.b64decode(encoded, validate=True)
            verifier = cls(name, blob[0], blob[1:])
            good = bool(_NAME.fullmatch(name)) and verifier.type in (ED25519, COSIGNATURE) and len(verifier.public) == 32
        except (ValueError, IndexError) as error:
            raise AuditError(f"{vkey[:80]!r} is not a verifier key.") from error
        if not good or verifier.vkey != vkey.strip() or verifier.key_id.hex() != key_id:
            raise AuditError(f"{vkey[:80]!r} is not a verifier key: its name, type or key ID is wrong.")
        return verifier

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "NoteVerifier":
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            advice = 'Give the log\'s public key, such as the log.vkey of "diffpriv keys init".'
            raise AuditError(f"the log's public key {path} can't be read: {reason}.", advice=advice) from error

    def check(self, text: bytes, signature: bytes) -> int | None:
        """The time of a cosignature, None for a plain signature. Raises: InvalidSignature."""
        public = Ed25519PublicKey.from_public_bytes(self.public)
        if self.type == ED25519:
            public.verify(signature, text)
            return None
        if len(signature) != 72:
            raise InvalidSignature
        time = int.from_bytes(signature[:8], "big")
        public.verify(signature[8:], _cosigned(text, time))
        return time


class NoteKey(SecretBytes):
    """An Ed25519 signing key with a name and one role: the log's, the release's, the office's, or a witness's."""

    __slots__ = ("name", "type")
    name: str
    type: int

    def __init__(self, material: bytes, name: str = "diffpriv", type: int = ED25519) -> None:
        super().__init__(material)
        if not _NAME.fullmatch(name):
            raise MisuseError(f"the name of a log or witness can't be {name!r}: no spaces, no '+'.")
        self.name, self.type = name, type

    @classmethod
    def create(cls, name: str, *, witness: bool = False) -> "NoteKey":
        return cls(os.urandom(32), name, COSIGNATURE if witness else ED25519)

    @property
    def verifier(self) -> NoteVerifier:
        return NoteVerifier(self.name, self.type, self._ed25519().public_key().public_bytes_raw())

    def _ed25519(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(reveal(self))

    def signature_line(self, text: bytes, time: int | None = None) -> bytes:
        """`time` is a witness's clock, in Unix seconds; a log's signature has none."""
        if (self.type == COSIGNATURE) != (time is not None):
            raise ValueError("a witness's cosignature has a time, and only that")
        blob = self.verifier.key_id
        if time is None:
            blob += self._ed25519().sign(text)
        else:
            blob += time.to_bytes(8, "big") + self._ed25519().sign(_cosigned(text, time))
        return f"{_DASH}{self.name} {_b64(blob)}\n".encode()

    def save(self, path: str | os.PathLike[str], passphrase: str | None = None, *, role: str = "log", **argon2: int) -> None:
        """A file of mode 0600. Without a passphrase, only that mode guards it: what a nightly job needs.

        Args:
            role: what the key is for, one of ROLES; a file of one role is refused where another is needed.
        """
        kind = "witness" if self.type == COSIGNATURE else role
        if kind not in ROLES:
            raise MisuseError(f"{kind!r} is no role of a signing key; there are {', '.join(ROLES)}.")
        vkey = self.verifier.vkey
        public = {"vkey": vkey, "fingerprint": vkey.split("+")[1]}
        lockbox.write_private(path, lockbox.lock(kind, reveal(self), public, passphrase, **argon2))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], passphrase: str | None = None, *, witness: bool = False, role: str = "log"
    ) -> "NoteKey":
        try:
            data = lockbox.read_private(path)
        except OSError as error:
            raise RecipientError(f"signing key file {path} can't be read: {error.strerror}.") from error
        secret, public = lockbox.unlock(data, "witness" if witness else role, passphrase, name=str(path))
        verifier = NoteVerifier.parse(str(public.get("vkey")))
        key = cls(secret, verifier.name, verifier.type)
        if key.verifier != verifier:
            raise RecipientError(f"{path}: the private key does not belong to the public one beside it.")
        return key


def sign_note(text: bytes, *keys: NoteKey) -> bytes:
    """A text with a signature line of each key below it."""
    if not text.endswith(b"\n"):
        raise ValueError("the text of a note ends with a newline")
    return text + b"\n" + b"".join(key.signature_line(text) for key in keys)


def open_note(note: bytes, verifiers: Sequence[NoteVerifier], *, what: str = "the note") -> tuple[bytes, dict[str, int | None]]:
    """(text, {vkey: time of a cosignature or None}) of the given verifiers that signed.

    Raises: AuditError if the note is malformed or a given verifier's signature is wrong. Unknown signers are passed over.
    """
    text, separator, lines = note.rpartition(b"\n\n")
    text += b"\n"
    try:
        if not separator or not lines.endswith(b"\n"):
            raise ValueError("no signature block")
        signed: dict[str, int | None] = {}
        for line in lines.decode()[:-1].split("\n"):
            name, _, encoded = line.removeprefix(_DASH).partition(" ")
            blob = base64.b64decode(encoded, validate=True)
            if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(blob) < 5 or _b64(blob) != encoded:
                raise ValueError("a signature line is malformed")
            for verifier in verifiers:
                if (verifier.name, verifier.key_id) == (name, blob[:4]):
                    signed[verifier.vkey] = verifier.check(text, blob[4:])
    except InvalidSignature:
        raise AuditError(f"{what}: the signature of {name} is wrong; its text was altered.") from None
    except (ValueError, binascii.Error, UnicodeDecodeError) as error:
        raise AuditError(f"{what} is not a signed note: {error}.") from error
    return text, signed


def sign_json(key: NoteKey, label: str, body: Any) -> bytes:
    """A signed document: a note with the text `<label>\\n<canonical JSON>\\n`. A label has a space, an origin never."""
    if " " not in label:
        raise ValueError("a document's label has a space, so that it can't be taken for a checkpoint")
    return sign_note(label.encode() + b"\n" + lockbox.canonical_json(body) + b"\n", key)


def open_json(note: bytes, label: str, verifier: NoteVerifier, *, what: str) -> Any:
    """Raises: AuditError unless `verifier` signed this document and it has this label."""
    text, signed = open_note(note, [verifier], what=what)
    found, _, body = text.partition(b"\n")
    if verifier.vkey not in signed or found != label.encode():
        raise AuditError(f"{what} is not a {label} signed by {verifier.name}.")
    return parse_json(body)


def _cosigned(text: bytes, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n".encode() + text


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()

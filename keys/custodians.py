"""People who sign: custodians approve recoveries, requesters ask for them. Ed25519 identities, and the policy naming them.

A public identity is JSON: {"fingerprint", "format": "diffpriv custodian", "name", "public": base64 of 32 bytes, "version": 1};
fingerprint = the first 16 bytes, in hex, of SHA-256(canonical("diffpriv/v1/custodian", public)). The private half is a
passphrase file (keys/lockbox.py, kind "custodian"). Every signature is over canonical("diffpriv/v1/signed", label, message).
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keys import lockbox
from keys.cleartext import reveal
from keys.context import canonical
from keys.errors import MisuseError, RecipientError
from keys.lockbox import canonical_json
from keys.secrets import SecretBytes

_FORMAT = "diffpriv custodian"
_POLICY_FORMAT = "diffpriv custody policy"


@dataclass(frozen=True)
class Custodian:
    """A person's public key. The name is for people and stays in files; the audit log holds the fingerprint only."""

    name: str
    public: bytes  # 32 bytes, Ed25519

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(canonical("diffpriv/v1/custodian", self.public)).hexdigest()[:32]

    def signed(self, label: str, message: bytes, signature: bytes) -> bool:
        """Whether this person signed `message` as a `label`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, _to_sign(label, message))
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        public = base64.b64encode(self.public).decode()
        return {"format": _FORMAT, "version": 1, "name": self.name, "public": public, "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the custodian") -> "Custodian":
        try:
            custodian = cls(str(body["name"]), base64.b64decode(body["public"], validate=True))
            known = body["format"] == _FORMAT and body["version"] == 1 and len(custodian.public) == 32
            fits = body["fingerprint"] == custodian.fingerprint
        except (ValueError, KeyError, TypeError) as error:
            raise RecipientError(f"{origin} is not a custodian file.") from error
        if not known or not fits:
            raise RecipientError(f"{origin} is not a custodian file, or its public key does not fit its fingerprint.")
        return custodian

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Custodian":
        return cls.from_json(read_json(path), origin=str(path))


class CustodianKey(SecretBytes):
    """A person's private key."""

    __slots__ = ("name",)
    name: str

    def __init__(self, material: bytes, name: str = "") -> None:
        super().__init__(material)
        self.name = name

    @classmethod
    def create(cls, name: str) -> "CustodianKey":
        return cls(os.urandom(32), name)

    @property
    def custodian(self) -> Custodian:
        return Custodian(self.name, self._ed25519().public_key().public_bytes_raw())

    def sign(self, label: str, message: bytes) -> bytes:
        return self._ed25519().sign(_to_sign(label, message))

    def _ed25519(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(reveal(self))

    def save(self, path: str | os.PathLike[str], passphrase: str, **argon2: int) -> None:
        data = lockbox.lock("custodian", reveal(self), self.custodian.to_json(), passphrase, **argon2)
        lockbox.write_private(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None) -> "CustodianKey":
        """Raises: PassphraseError, RecipientError naming the file."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise RecipientError(f"custodian key file {path} can't be read: {error.strerror}.") from error
        secret, public = lockbox.unlock(data, "custodian", passphrase, name=str(path))
        key = cls(secret, str(public.get("name", "")))
        if key.custodian.fingerprint != public["fingerprint"]:
            raise RecipientError(f"{path}: the private key does not belong to the public one beside it.")
        return key


@dataclass(frozen=True)
class CustodyPolicy:
    """Who may ask, who may approve, and how many approvals a recovery takes.

    File: JSON {"custodians": [...], "format": "diffpriv custody policy", "quorum": M, "requesters": [...], "version": 1}.
    One person has one entry: names are unique over both lists, so that "not the requester" means a person and not a key.
    """

    quorum: int
    custodians: tuple[Custodian, ...]
    requesters: tuple[Custodian, ...] = ()  # people who may ask but not approve; custodians may ask too

    def __post_init__(self) -> None:
        people = [*self.custodians, *self.requesters]
        if not 1 <= self.quorum <= len(self.custodians):
            raise MisuseError(f"a quorum of {self.quorum} out of {len(self.custodians)} custodians can't be reached.")
        for what in ("name", "fingerprint"):
            seen = [getattr(person, what) for person in people]
            if len(set(seen)) < len(seen):
                raise MisuseError(f"the custody policy lists the same {what} twice: one person has one key in it.")

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(canonical("diffpriv/v1/policy", canonical_json(self.to_json()))).hexdigest()

    def custodian(self, fingerprint: str) -> Custodian | None:
        return _find(self.custodians, fingerprint)

    def person(self, fingerprint: str) -> Custodian | None:
        return _find([*self.custodians, *self.requesters], fingerprint)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _POLICY_FORMAT,
            "version": 1,
            "quorum": self.quorum,
            "custodians": [person.to_json() for person in self.custodians],
            "requesters": [person.to_json() for person in self.requesters],
        }

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the custody policy") -> "CustodyPolicy":
        try:
            if body["format"] != _POLICY_FORMAT or body["version"] != 1 or not isinstance(body["quorum"], int):
                raise ValueError("unknown format")
            custodians, requesters = (
                tuple(Custodian.from_json(one, origin=origin) for one in body[group]) for group in ("custodians", "requesters")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RecipientError(f"{origin} is not a custody policy.") from error
        return cls(body["quorum"], custodians, requesters)

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CustodyPolicy":
        return cls.from_json(read_json(path), origin=str(path))


def _find(people: Sequence[Custodian], fingerprint: str) -> Custodian | None:
    return next((person for person in people if person.fingerprint == fingerprint), None)


def _to_sign(label: str, message: bytes) -> bytes:
    return canonical("diffpriv/v1/signed", label.encode(), message)


def read_json(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise RecipientError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise RecipientError(f"{path} is not JSON.") from error

"""People who sign: custodians approve recoveries, requesters ask for them. Ed25519 identities, and the policy naming them.

A public identity is JSON: {"fingerprint", "format": "diffpriv custodian", "name", "public": base64 of 32 bytes, "version": 2,
"sealing": a recipient (keys/recipients.py), to which this custodian's shares of shard secrets are sealed}; version 1 has no
"sealing". fingerprint = the first 16 bytes, in hex, of SHA-256(canonical("diffpriv/v1/custodian", public)). The private half is
a passphrase file (keys/lockbox.py, kind "custodian") with a 32-byte seed: the Ed25519 key, and the root of the sealing key as
HKDF-SHA256(seed, info "diffpriv/v2/custodian/sealing"). A sealing key may live in AWS KMS or on a token instead.
Every signature is over canonical("diffpriv/v1/signed", label, message).
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

from diffpriv.keys import lockbox
from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import canonical
from diffpriv.keys.errors import AuditError, MisuseError, RecipientError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.notes import COSIGNATURE, NoteVerifier
from diffpriv.keys.recipients import Recipient, RecipientKey
from diffpriv.keys.secrets import SecretBytes

_FORMAT = "diffpriv custodian"
_POLICY_FORMAT = "diffpriv custody policy"
_SEALING = "diffpriv/v2/custodian/sealing"
MAX_CUSTODIANS = 16  # as many shares as the splitting knows (keys/quorum.py)


@dataclass(frozen=True)
class Custodian:
    """A person's public keys. The name is for people and stays in files; the audit log holds fingerprints and keys only.

    Attributes:
        public: 32 bytes, Ed25519: checks this person's signatures.
        sealing: where this person's shares are sealed to; None for people who hold none.
    """

    name: str
    public: bytes
    sealing: Recipient | None = None

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
        body = {"format": _FORMAT, "version": 1, "name": self.name, "public": public, "fingerprint": self.fingerprint}
        return body if self.sealing is None else body | {"version": 2, "sealing": self.sealing.to_json()}

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the custodian") -> "Custodian":
        try:
            sealing = Recipient.from_json(body["sealing"], origin=origin) if body["version"] == 2 else None
            custodian = cls(str(body["name"]), base64.b64decode(body["public"], validate=True), sealing)
            known = body["format"] == _FORMAT and body["version"] in (1, 2) and len(custodian.public) == 32
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
        return Custodian(self.name, self._ed25519().public_key().public_bytes_raw(), self.sealing_key.recipient)

    @property
    def sealing_key(self) -> RecipientKey:
        """Opens this custodian's shares, where the policy does not name a key in KMS or on a token for them."""
        return RecipientKey(self.derive(_SEALING), self.name)

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
            data = lockbox.read_private(path)
        except OSError as error:
            raise RecipientError(f"custodian key file {path} can't be read: {error.strerror}.") from error
        secret, public = lockbox.unlock(data, "custodian", passphrase, name=str(path))
        key = cls(secret, str(public.get("name", "")))
        if key.custodian.fingerprint != public["fingerprint"]:
            raise RecipientError(f"{path}: the private key does not belong to the public one beside it.")
        return key


@dataclass(frozen=True)
class CustodyPolicy:
    """Who may ask, who may approve, how many approvals a recovery takes, and who witnesses the log.

    File: JSON {"custodians": [...], "format": "diffpriv custody policy", "previous": digest or null, "quorum": M,
    "requesters": [...], "version": 2, "witnesses": {"quorum": K, "vkeys": [...]}}; version 1, whose custodians have no sealing
    keys, has neither "previous" nor "witnesses" and can't lock shards.
    One person has one entry: names are unique over both lists, so that "not the requester" means a person and not a key.
    Digest: SHA-256(canonical("diffpriv/v2/policy", canonical JSON of `public_form`)), so it holds no names; of version 1:
    SHA-256(canonical("diffpriv/v1/policy", canonical JSON of the file)).

    Attributes:
        requesters: people who may ask but not approve; custodians may ask too.
        witnesses: verifier keys (C2SP); `witness_quorum` of them cosign the release before anything is opened.
        previous: digest of the policy that this one follows; "" for the first.
    """

    quorum: int
    custodians: tuple[Custodian, ...]
    requesters: tuple[Custodian, ...] = ()
    witnesses: tuple[str, ...] = ()
    witness_quorum: int = 0
    previous: str = ""

    def __post_init__(self) -> None:
        people = [*self.custodians, *self.requesters]
        if not 1 <= self.quorum <= len(self.custodians):
            raise MisuseError(f"a quorum of {self.quorum} out of {len(self.custodians)} custodians can't be reached.")
        for what in ("name", "fingerprint"):
            seen = [getattr(person, what) for person in people]
            if len(set(seen)) < len(seen):
                raise MisuseError(f"the custody policy lists the same {what} twice: one person has one key in it.")
        if self.locks:
            self._check_locking()
        elif self.witnesses or self.witness_quorum or self.previous:
            raise MisuseError("a custody policy without sealing keys has no witnesses and follows no other.")

    def _check_locking(self) -> None:
        sealing = [one.sealing.fingerprint for one in self.custodians if one.sealing is not None]
        if len(sealing) < len(self.custodians):
            raise MisuseError("some custodians of the policy have a sealing key and some have none.", advice=_NEW_FILES)
        if len(set(sealing)) < len(sealing):
            raise MisuseError("two custodians of the policy have the same sealing key: one person would hold two shares.")
        if len(self.custodians) > MAX_CUSTODIANS:
            raise MisuseError(f"a policy has at most {MAX_CUSTODIANS} custodians; this one has {len(self.custodians)}.")
        verifiers = self.witness_verifiers
        if any(one.type != COSIGNATURE for one in verifiers) or len({one.public for one in verifiers}) < len(verifiers):
            raise MisuseError("the policy's witnesses need cosignature keys, each its own.")
        if not 0 <= self.witness_quorum <= len(verifiers):
            raise MisuseError(f"{self.witness_quorum} of {len(verifiers)} witnesses can't be reached.")

    @property
    def locks(self) -> bool:
        """Whether shards can be locked under it: its custodians have sealing keys."""
        return any(one.sealing is not None for one in self.custodians)

    @cached_property
    def digest(self) -> str:
        if not self.locks:
            return hashlib.sha256(canonical("diffpriv/v1/policy", canonical_json(self.to_json()))).hexdigest()
        return hashlib.sha256(canonical("diffpriv/v2/policy", canonical_json(self.public_form()))).hexdigest()

    @cached_property
    def witness_verifiers(self) -> tuple[NoteVerifier, ...]:
        return tuple(NoteVerifier.parse(vkey) for vkey in self.witnesses)

    def custodian(self, fingerprint: str) -> Custodian | None:
        return _find(self.custodians, fingerprint)

    def person(self, fingerprint: str) -> Custodian | None:
        return _find([*self.custodians, *self.requesters], fingerprint)

    def place(self, fingerprint: str) -> int:
        """Which custodian, counted from 0: the number of their share. Raises: MisuseError."""
        for number, one in enumerate(self.custodians):
            if one.fingerprint == fingerprint:
                return number
        raise MisuseError(f"{fingerprint[:8]}… is not a custodian of this policy.")

    def public_form(self) -> dict[str, Any]:
        """The policy without names: what its digest is over, and what the audit log holds of it."""
        return {
            "quorum": self.quorum,
            "custodians": [
                {"public": _b64(one.public), "sealing": [one.sealing.kind, _b64(one.sealing.public)]}
                for one in self.custodians
                if one.sealing is not None
            ],
            "requesters": [{"public": _b64(one.public)} for one in self.requesters],
            "witnesses": {"quorum": self.witness_quorum, "vkeys": list(self.witnesses)},
            "previous": self.previous or None,
        }

    @classmethod
    def from_public_form(cls, form: Any, *, origin: str = "the policy in the log") -> "CustodyPolicy":
        """The policy as the log holds it; people are called by their fingerprints. Raises: RecipientError."""
        try:
            custodians = [
                Custodian(
                    "", base64.b64decode(one["public"]), Recipient(one["sealing"][0], base64.b64decode(one["sealing"][1]))
                )
                for one in form["custodians"]
            ]
            requesters = [Custodian("", base64.b64decode(one["public"])) for one in form["requesters"]]
            policy = cls(
                form["quorum"],
                tuple(Custodian(one.fingerprint, one.public, one.sealing) for one in custodians),
                tuple(Custodian(one.fingerprint, one.public) for one in requesters),
                tuple(form["witnesses"]["vkeys"]),
                form["witnesses"]["quorum"],
                form["previous"] or "",
            )
        except (ValueError, KeyError, TypeError, IndexError, MisuseError, AuditError) as error:
            raise RecipientError(f"{origin} is not a custody policy.") from error
        return policy

    def to_json(self) -> dict[str, Any]:
        body = {
            "format": _POLICY_FORMAT,
            "version": 1,
            "quorum": self.quorum,
            "custodians": [person.to_json() for person in self.custodians],
            "requesters": [person.to_json() for person in self.requesters],
        }
        if not self.locks:
            return body
        witnesses = {"quorum": self.witness_quorum, "vkeys": list(self.witnesses)}
        return body | {"version": 2, "witnesses": witnesses, "previous": self.previous or None}

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the custody policy") -> "CustodyPolicy":
        try:
            if body["format"] != _POLICY_FORMAT or body["version"] not in (1, 2) or type(body["quorum"]) is not int:
                raise ValueError("unknown format")
            custodians, requesters = (
                tuple(Custodian.from_json(one, origin=origin) for one in body[group]) for group in ("custodians", "requesters")
            )
            if body["version"] == 1:
                return cls(body["quorum"], custodians, requesters)
            witnesses, previous = body["witnesses"], body["previous"] or ""
            policy = cls(
                body["quorum"], custodians, requesters, tuple(witnesses["vkeys"]), int(witnesses["quorum"]), str(previous)
            )
        except (ValueError, KeyError, TypeError, AuditError) as error:
            raise RecipientError(f"{origin} is not a custody policy.") from error
        if not policy.locks:
            raise RecipientError(f"{origin} is a custody policy of version 2 without sealing keys.", advice=_NEW_FILES)
        return policy

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CustodyPolicy":
        return cls.from_json(read_json(path), origin=str(path))


_NEW_FILES = 'Have every custodian make a new public file: "diffpriv keys custodian".'


def _find(people: Sequence[Custodian], fingerprint: str) -> Custodian | None:
    return next((person for person in people if person.fingerprint == fingerprint), None)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _to_sign(label: str, message: bytes) -> bytes:
    return canonical("diffpriv/v1/signed", label.encode(), message)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file; a RecipientError names the file if that fails."""
    try:
        return parse_json(Path(path).read_bytes())
    except OSError as error:
        raise RecipientError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise RecipientError(f"{path} is not JSON.") from error

"""Who can open the shard keys: recipients (public, all that a job holds) and their private keys.

Kinds of recipient, all of which let the job lock and never unlock:

hpke-mlkem768-x25519: RFC 9180 HPKE, base mode, KEM MLKEM768_X25519, HKDF-SHA256, AES-256-GCM.
    public   ML-KEM-768 public key (1,184 bytes) || X25519 public key (32)
    private  a 32-byte root R; ML-KEM seed = HKDF-SHA256(R, info "diffpriv/v1/recipient/mlkem768", 64 bytes),
             X25519 private key = HKDF-SHA256(R, info "diffpriv/v1/recipient/x25519", 32 bytes)
    wrapped shard key, 1,168 bytes: HPKE encapsulation (1,120) || AES-256-GCM(shard key) (32) || tag (16), `info` = wrap context
rsa-oaep-sha256: for AWS KMS and PKCS#11, whose private half never leaves the service or token. Not post-quantum.
    public   DER SubjectPublicKeyInfo, at least 3,072 bits
    wrapped shard key, as long as the modulus: RSA-OAEP(SHA-256, MGF1-SHA-256, no label) of shard key (32) || SHA-256(wrap
    context): these services take no label, so the context is bound inside what is wrapped
rsa-oaep-sha1: the same with SHA-1 inside the padding, for tokens that offer nothing else (SoftHSM 2.6, many HSMs). OAEP does
not
    rest on SHA-1 being free of collisions; the context digest stays SHA-256.

Fingerprint: the first 16 bytes, in hex, of SHA-256(canonical("diffpriv/v1/recipient", kind, public)).

A recipient file is one JSON object: format "diffpriv recipient", version 1, kind, name, locator (where the private half lives:
"", "aws-kms:<key ARN>" or "pkcs11:<token>/<label>"), public (base64), fingerprint (checked on reading: a typo is found).
"""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import mlkem, padding, rsa, x25519

from diffpriv.keys import lockbox
from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import canonical
from diffpriv.keys.errors import MisuseError, RecipientError, RecordError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.secrets import SecretBytes, ShardKey

HPKE = "hpke-mlkem768-x25519"
RSA_OAEP = "rsa-oaep-sha256"
RSA_OAEP_SHA1 = "rsa-oaep-sha1"
_MLKEM_PUBLIC, _X25519_PUBLIC = 1184, 32
_FORMAT = "diffpriv recipient"
_MIN_RSA_BITS = 3072
_OAEP_HASHES: dict[str, type[hashes.HashAlgorithm]] = {RSA_OAEP: hashes.SHA256, RSA_OAEP_SHA1: hashes.SHA1}


class Unwrapper(Protocol):
    """Whatever can open a wrapped shard key: a RecipientKey, keys.aws_kms.KmsRecipientKey, keys.pkcs11.TokenRecipientKey."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def recipient(self) -> "Recipient":
        """The public half."""
        ...

    def unwrap(self, wrapped: bytes, info: bytes) -> ShardKey:
        """Raises: RecordError if the bytes were not wrapped for this key and this context."""
        ...


@dataclass(frozen=True)
class Recipient:
    """A public key that shard keys are wrapped to. Plain data: safe to pickle, print and publish."""

    kind: str
    public: bytes
    name: str = ""
    locator: str = ""

    def __post_init__(self) -> None:
        try:
            if self.kind == HPKE:
                _hpke_public(self.public)
            elif self.kind in _OAEP_HASHES:
                _rsa_public(self.public)
            else:
                raise ValueError(f"kind {self.kind!r} is unknown")
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise RecipientError(f"recipient {self.name or '(no name)'} has no usable public key: {error}.") from error

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(canonical("diffpriv/v1/recipient", self.kind.encode(), self.public)).hexdigest()[:32]

    def wrap(self, key: SecretBytes, info: bytes) -> bytes:
        """A shard key, or another 32-byte secret, for this recipient, bound to `info` (layout in the module's docstring)."""
        if self.kind == HPKE:
            return _suite().encrypt(reveal(key), _hpke_public(self.public), info=info)
        bound = reveal(key) + hashlib.sha256(info).digest()
        oaep_hash = _OAEP_HASHES[self.kind]
        return _rsa_public(self.public).encrypt(bound, padding.OAEP(padding.MGF1(oaep_hash()), oaep_hash(), None))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": 1,
            "kind": self.kind,
            "name": self.name,
            "locator": self.locator,
            "public": base64.b64encode(self.public).decode(),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the recipient") -> "Recipient":
        try:
            if body["format"] != _FORMAT or body["version"] != 1:
                raise ValueError("not a recipient of version 1")
            recipient = cls(body["kind"], base64.b64decode(body["public"], validate=True), body["name"], body["locator"])
            fingerprint = body["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise RecipientError(f"{origin} is not a recipient file.", advice=_WHERE_FROM) from error
        except RecipientError as error:
            raise RecipientError(f"{origin}: {error.message}", advice=_WHERE_FROM) from error
        if fingerprint != recipient.fingerprint:
            message = f"{origin}: the public key does not fit the fingerprint; the file was altered or cut."
            raise RecipientError(message, advice=_WHERE_FROM)
        return recipient

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipient":
        try:
            body = parse_json(Path(path).read_bytes())
        except OSError as error:
            raise RecipientError(f"recipient file {path} can't be read: {error.strerror}.", advice=_WHERE_FROM) from error
        except ValueError as error:
            raise RecipientError(f"{path} is not a recipient file.", advice=_WHERE_FROM) from error
        return cls.from_json(body, origin=str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_WHERE_FROM = 'A recipient file is made by "diffpriv keys init"; give its public half, not the private key.'


class RecipientKey(SecretBytes):
    """The private half of an HPKE recipient. Lives in a passphrase file (keys/lockbox.py) or is split among custodians."""

    __slots__ = ("_private", "recipient")
    recipient: Recipient

    def __init__(self, material: bytes, name: str = "") -> None:
        super().__init__(material)
        mlkem_half = mlkem.MLKEM768PrivateKey.from_seed_bytes(self.derive("diffpriv/v1/recipient/mlkem768", 64))
        x25519_half = x25519.X25519PrivateKey.from_private_bytes(self.derive("diffpriv/v1/recipient/x25519", 32))
        self._private = hpke.MLKEM768X25519PrivateKey(mlkem_half, x25519_half)
        public = mlkem_half.public_key().public_bytes_raw() + x25519_half.public_key().public_bytes_raw()
        self.recipient = Recipient(HPKE, public, name)

    @property
    def fingerprint(self) -> str:
        return self.recipient.fingerprint

    def unwrap(self, wrapped: bytes, info: bytes) -> ShardKey:
        try:
            return ShardKey(_suite().decrypt(wrapped, self._private, info=info))
        except (InvalidTag, ValueError):
            raise RecordError("the wrapped shard key fails its authentication") from None

    def save(self, path: str | os.PathLike[str], passphrase: str | None, **argon2: int) -> None:
        """Write the private key file (mode 0600, never over another). `argon2`: iterations, lanes, memory_kib.

        Without a passphrase only the mode guards it: for a run key, which serves one case and opens nothing alone.
        """
        lockbox.write_private(path, lockbox.lock("recipient", reveal(self), self.recipient.to_json(), passphrase, **argon2))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None) -> "RecipientKey":
        """Raises: PassphraseError, RecipientError naming the file."""
        try:
            data = lockbox.read_private(path)
        except OSError as error:
            raise RecipientError(f"private key file {path} can't be read: {error.strerror}.") from error
        secret, public = lockbox.unlock(data, "recipient", passphrase, name=str(path))
        key = cls(secret, Recipient.from_json(public, origin=str(path)).name)
        if key.fingerprint != public["fingerprint"]:
            raise RecipientError(f"{path}: the private key does not belong to the public one beside it.")
        return key


def open_bound(plaintext: bytes, info: bytes) -> ShardKey:
    """Check and take apart what an RSA-OAEP recipient wrapped: shard key || SHA-256(context)."""
    if len(plaintext) != 64 or not hmac.compare_digest(plaintext[32:], hashlib.sha256(info).digest()):
        raise RecordError("the wrapped shard key belongs to another dataset, shard or part")
    return ShardKey(plaintext[:32])


def check_recipients(recipients: Sequence[Recipient]) -> None:
    """Raises: MisuseError for none at all, or the same one twice."""
    if not recipients:
        raise MisuseError("no recipient given: nobody could ever open the keys.", advice="Give at least one recipient file.")
    fingerprints = [recipient.fingerprint for recipient in recipients]
    for one in fingerprints:
        if fingerprints.count(one) > 1:
            raise MisuseError(f"recipient {one} is given twice.")


def _suite() -> hpke.Suite:
    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@lru_cache(maxsize=64)
def _hpke_public(public: bytes) -> hpke.MLKEM768X25519PublicKey:
    if len(public) != _MLKEM_PUBLIC + _X25519_PUBLIC:
        raise ValueError(f"it has {len(public)} bytes instead of {_MLKEM_PUBLIC + _X25519_PUBLIC}")
    return hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
        x25519.X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
    )


@lru_cache(maxsize=64)
def _rsa_public(public: bytes) -> rsa.RSAPublicKey:
    key = serialization.load_der_public_key(public)
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
        raise ValueError(f"an RSA key of at least {_MIN_RSA_BITS} bits is needed")
    return key

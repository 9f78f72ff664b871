"""Classes that hold secret bytes and refuse every accidental way out: repr, str, format, pickle, copy, `==`, hash.

A refusal is a TypeError, a programming mistake: it must be loud in development and can't be triggered by a user's input.
CPython can't promise that memory is wiped; the protection here is against leaks through logs, exceptions, object stores and
files, and against comparisons that take a secret-dependent time.
"""

import hmac
import os
from typing import Any, ClassVar, NoReturn, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Secret = TypeVar("Secret", bound="SecretBytes")


class SecretBytes:
    """`size` secret bytes. Compare with `same_as`, read with `keys.cleartext.reveal(secret)`."""

    __slots__ = ("_material",)
    size: ClassVar[int] = 32

    def __init__(self, material: bytes) -> None:
        if not isinstance(material, (bytes, bytearray, memoryview)) or len(material) != self.size:
            # The value itself must never get into a message, not even when it has the wrong type.
            raise ValueError(f"{type(self).__name__} takes exactly {self.size} bytes")
        self._material = bytes(material)

    @classmethod
    def generate(cls: type[Secret]) -> Secret:
        """A fresh one from the operating system's generator."""
        return cls(os.urandom(cls.size))

    @classmethod
    def from_bytes(cls: type[Secret], material: bytes) -> Secret:
        return cls(material)

    def derive(self, label: str, length: int = 32) -> bytes:
        """HKDF-SHA256(secret, no salt, info = UTF-8 label): independent bytes for each label, secret like their origin."""
        return HKDF(hashes.SHA256(), length, salt=None, info=label.encode()).derive(self._material)

    def same_as(self, other: "SecretBytes") -> bool:
        """Compare in a time that does not depend on the bytes; different classes are never the same."""
        return type(self) is type(other) and hmac.compare_digest(self._material, other._material)

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} refuses to be printed, compared, hashed, copied or pickled: "
            "compare with same_as, seal it to move it, and see keys/cleartext.py"
        )

    __repr__ = __str__ = __format__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = _refuse
    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _refuse
    __bytes__ = __iter__ = __len__ = _refuse


class FaceKey(SecretBytes):
    """The 32 bytes that one face's whole transformation is derived from."""

    __slots__ = ()


class ShardKey(SecretBytes):
    """The AEAD key that wraps the face keys of one part (one worker's batch) of a shard."""

    __slots__ = ()


class KeyHalf(SecretBytes):
    """One of the two secrets that a shard key is derived from: the recipients' or the quorum's."""

    __slots__ = ()


class KeyShare(SecretBytes):
    """One custodian's share of a shard's lock."""

    __slots__ = ()

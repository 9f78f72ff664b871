"""All randomness of a face, drawn from its seed by a cryptographic stream; never from a global generator.

stream(seed, label) = ChaCha20 keystream (RFC 8439, counter from 0) under HKDF-SHA256(seed, info = "diffpriv/v1/noise/" ||
label). Distinct labels (attempt number, purpose) give independent streams; without the seed they cannot be told from random.
Pure: same seed, label and shape give the same numbers on every machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEED_BYTES = 32
# Normals are rounded to this, so that the last bits of another machine's logarithm or cosine do not show.
_GRID = 2.0**-16


def keyed_bytes(seed: bytes, label: str, length: int) -> bytes:
    """`length` bytes of the face's stream named `label`.

    Raises:
        ValueError: the seed is not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, this one {len(seed)}")
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"diffpriv/v1/noise/" + label.encode()).derive(seed)
    return Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(length))


def keyed_uniform(seed: bytes, label: str, count: int) -> np.ndarray:
    """(count,) float64 strictly inside (0, 1), 53 random bits each."""
    words = np.frombuffer(keyed_bytes(seed, label, 8 * count), dtype="<u8")
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def keyed_normal(seed: bytes, label: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers of the given shape, float32 (Box and Muller 1958)."""
    count = math.prod(shape)
    pairs = (count + 1) // 2
    uniform = keyed_uniform(seed, label, 2 * pairs)
    radius = np.sqrt(-2 * np.log(uniform[:pairs]))
    angle = 2 * np.pi * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return (np.round(normal / _GRID) * _GRID).astype(np.float32).reshape(tuple(shape))


def candidate_seed(seed: bytes, number: int) -> bytes:
    """32 bytes that everything of a face's candidate is drawn from; the first candidate's seed is the face's own."""
    return seed if number == 0 else keyed_bytes(seed, f"candidate/{number}", SEED_BYTES)


@dataclass(frozen=True, eq=False)
class KeyedMap:
    """A secret orthogonal map of `count` numbers: a permutation and a sign for each. Undone by whoever has the seed.

    Without the seed, what is left of the numbers is how large they are, and not where.

    Attributes:
        order: (count,) int64; place i of the mapped numbers holds the original's place order[i].
        signs: (count,) int8, +1 or -1 with equal chance.
    """

    order: np.ndarray
    signs: np.ndarray

    @classmethod
    def of(cls, seed: bytes, label: str, count: int) -> "KeyedMap":
        words = np.frombuffer(keyed_bytes(seed, f"{label}/order", 8 * count), "<u8")
        bits = np.unpackbits(np.frombuffer(keyed_bytes(seed, f"{label}/signs", (count + 7) // 8), np.uint8))[:count]
        return cls(np.argsort(words, kind="stable"), 1 - 2 * bits.astype(np.int8))

    def apply(self, numbers: np.ndarray) -> np.ndarray:
        """(count,) of any signed dtype -> the same, mapped."""
        return (numbers[self.order] * self.signs).astype(numbers.dtype)

    def undo(self, mapped: np.ndarray) -> np.ndarray:
        numbers = np.empty_like(mapped)
        numbers[self.order] = mapped * self.signs
        return numbers

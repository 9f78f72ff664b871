"""What a sealed record belongs to, as canonical bytes: two contexts never give the same bytes, one context always does.

canonical(label, field, ...) =
    size  field
       2  length of label
       n  label, ASCII
    then for every field: 4 bytes length, the bytes. Integers are big-endian. Text is UTF-8.
"""

import re
import struct
from dataclasses import dataclass
from functools import cached_property

FORMAT_VERSION = 1

_SHARD_LABEL = "diffpriv/v1/shard"
_FACE_LABEL = "diffpriv/v1/face"
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


def canonical(label: str, *fields: bytes) -> bytes:
    """Length-prefixed concatenation (layout above)."""
    name = label.encode("ascii")
    return b"".join([struct.pack(">H", len(name)), name, *(struct.pack(">I", len(field)) + field for field in fields)])


@dataclass(frozen=True)
class ShardContext:
    """The dataset, the output shard and the configuration that a key file is for.

    Bytes: canonical("diffpriv/v1/shard", dataset, shard, 32 bytes of the config digest, 2 bytes format version).
    """

    dataset: str
    shard: str
    config_digest: str  # 64 lower-case hex digits

    def __post_init__(self) -> None:
        if not self.dataset or not self.shard:
            raise ValueError("a shard context needs the names of its dataset and shard")
        if not _HEX_DIGEST.fullmatch(self.config_digest):
            raise ValueError("config_digest must be a SHA-256 digest, 64 lower-case hex digits")

    @cached_property
    def canonical_bytes(self) -> bytes:
        return canonical(
            _SHARD_LABEL,
            self.dataset.encode(),
            self.shard.encode(),
            bytes.fromhex(self.config_digest),
            struct.pack(">H", FORMAT_VERSION),
        )

    def face(self, sample: str, face_index: int) -> "FaceContext":
        return FaceContext(self, sample, face_index)


@dataclass(frozen=True)
class FaceContext:
    """One face of one sample of a shard.

    Bytes: canonical("diffpriv/v1/face", the shard context's bytes, sample, 4 bytes face index).
    """

    shard: ShardContext
    sample: str
    face_index: int

    @property
    def canonical_bytes(self) -> bytes:
        return canonical(_FACE_LABEL, self.shard.canonical_bytes, self.sample.encode(), struct.pack(">I", self.face_index))

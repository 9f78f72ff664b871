"""Where face keys come from: the operating system (the default), or a root for tests and replays."""

from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from diffpriv.keys.context import ShardContext, canonical
from diffpriv.keys.secrets import FaceKey


class KeySource(Protocol):
    """Where a worker gets the keys of faces."""

    def face_key(self, context: ShardContext, sample: str, face_index: int) -> FaceKey:
        """The key of one face. Called in the worker that transforms and seals the face, and nowhere else."""
        ...


class RandomKeySource:
    """Fresh, independent keys: asking twice for one face gives two keys. The only source for real runs."""

    def face_key(self, context: ShardContext, sample: str, face_index: int) -> FaceKey:
        return FaceKey.generate()


class DerivedKeySource:
    """Keys derived from a root, for tests and replays: who knows the root knows every key. Never the default.

    key = HKDF-SHA256(root, no salt, info = canonical("diffpriv/v1/derived-face-key", dataset, shard, sample, 4 bytes index)).
    The config digest is left out on purpose: a replay with other settings compares the same faces under the same keys.
    """

    def __init__(self, root: bytes) -> None:
        if len(root) < 16:
            raise ValueError("a root of at least 16 bytes is needed")
        self._root = bytes(root)

    def face_key(self, context: ShardContext, sample: str, face_index: int) -> FaceKey:
        info = canonical(
            "diffpriv/v1/derived-face-key",
            context.dataset.encode(),
            context.shard.encode(),
            sample.encode(),
            face_index.to_bytes(4, "big"),
        )
        return FaceKey(HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(self._root))

    def __repr__(self) -> str:
        return "DerivedKeySource(root not shown)"

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        raise TypeError("DerivedKeySource holds a secret root and refuses pickling: build it inside the worker")

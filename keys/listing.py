"""`diffpriv keys list`: what a key store holds, without opening anything."""

from dataclasses import dataclass

from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.store import KeyStore


@dataclass(frozen=True)
class KeyFileSummary:
    """What a key file says without a key."""

    dataset: str
    shard: str
    faces: int  # with a living record
    shredded: int
    parts: int
    recipients: tuple[str, ...]  # fingerprints
    size: int  # bytes
    config_digest: str
    policy: str  # digest of the custody policy it is locked under; "" where a recipient's key alone opens it


def list_key_files(store: KeyStore, dataset: str | None = None) -> list[KeyFileSummary]:
    """One line per key file, sorted. Raises: KeyFileError naming the first damaged one."""
    found = []
    for shard in store.list(dataset):
        data = store.get(*shard)
        file = KeyFile.parse(data, dataset=shard[0], shard=shard[1])
        gone = len(file.shredded())
        sealed_to, digest = tuple(file.sealed_to), file.context.config_digest
        living = len(file) - gone
        found.append(KeyFileSummary(*shard, living, gone, len(file.parts), sealed_to, len(data), digest, file.policy))
    return found

"""`diffpriv keys list`: what a key store holds, without opening anything."""

from dataclasses import dataclass

from keys.keyfile import KeyFile
from keys.store import KeyStore


@dataclass(frozen=True)
class KeyFileSummary:
    dataset: str
    shard: str
    faces: int  # with a living record
    shredded: int
    parts: int
    recipients: tuple[str, ...]  # fingerprints
    size: int  # bytes
    config_digest: str


def list_key_files(store: KeyStore, dataset: str | None = None) -> list[KeyFileSummary]:
    """One line per key file, sorted. Raises: KeyFileError naming the first damaged one."""
    found = []
    for shard in store.list(dataset):
        data = store.get(*shard)
        file = KeyFile.parse(data, dataset=shard[0], shard=shard[1])
        gone = len(file.shredded())
        found.append(
            KeyFileSummary(
                *shard, len(file) - gone, gone, len(file.parts), tuple(file.sealed_to), len(data), file.context.config_digest
            )
        )
    return found

"""The key store: one key file per shard at a URL apart from the data.

Path of a key file: <dataset>/<shard>.keys.parquet, both names percent-encoded (everything but letters, digits and "_-.~"; a
leading dot too), so that a shard called "a/b.tar" stays one file and no name can climb out.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from diffpriv.keys.errors import MisuseError
from diffpriv.keys.files import open_location

SUFFIX = ".keys.parquet"
IDENTITY_ROOT = "identity-root.json"  # see keys/identity.py
_LONGEST = 200  # filesystems take 255 bytes; suffixes and temporary names need some of them


@dataclass(frozen=True)
class Receipt:
    """What the audit log records of a stored key file."""

    path: str  # relative to the store's URL
    sha256: str
    size: int


def encode_name(name: str) -> str:
    """A dataset's or shard's name as one path segment. Raises: MisuseError if no filesystem would take it."""
    encoded = quote(name, safe="")
    if len(encoded) > _LONGEST:
        raise MisuseError(
            f"the name {name[:40]}… is too long: {len(encoded)} bytes as a file name, and {_LONGEST} is the limit."
        )
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


def key_file_path(dataset: str, shard: str) -> str:
    """Name of a shard's key file in the store."""
    return f"{encode_name(dataset)}/{encode_name(shard)}{SUFFIX}"


class KeyStore:
    """Key files at a local path or any fsspec URL.

    Raises: StorageError where the store can't be read or written; nothing is ever half-written.
    """

    def __init__(self, url: str | os.PathLike[str], **storage_options: Any) -> None:
        self.location = open_location(url, **storage_options)
        self.url = self.location.url

    def put(self, dataset: str, shard: str, data: bytes) -> Receipt:
        """Replace the shard's key file; durable and atomic when this returns."""
        path = key_file_path(dataset, shard)
        self.location.write(path, data)
        return Receipt(path, hashlib.sha256(data).hexdigest(), len(data))

    def get(self, dataset: str, shard: str) -> bytes:
        return self.location.read(key_file_path(dataset, shard))

    def get_if_there(self, dataset: str, shard: str) -> bytes | None:
        return self.location.read_if_there(key_file_path(dataset, shard))

    def list(self, dataset: str | None = None) -> list[tuple[str, str]]:
        """(dataset, shard) of every key file, sorted."""
        found = []
        for name in self.location.names(encode_name(dataset) if dataset is not None else ""):
            folder, _, file = name.partition("/")
            if file.endswith(SUFFIX) and "/" not in file:
                found.append((unquote(folder), unquote(file[: -len(SUFFIX)])))
        return sorted(found)

    def unexpected(self) -> Sequence[str]:
        """Files that no key file's name explains, half-written ones of dead processes too; `audit verify` names them."""
        known = {key_file_path(dataset, shard) for dataset, shard in self.list()}
        known |= {name for name in self.location.names() if name.endswith(f"/{IDENTITY_ROOT}") and name.count("/") == 1}
        return [name for name in self.location.names() if name not in known] + self.location.abandoned()

    def delete(self, dataset: str, shard: str) -> bool:
        """Remove a half-made key file. To destroy keys on purpose use keys.shredding, which logs it and leaves the date."""
        return self.location.delete(key_file_path(dataset, shard))

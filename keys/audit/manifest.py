"""The data manifest: which published shard has which digest, as one file that can travel with the data.

UTF-8, one canonical JSON object per line, sorted by (dataset, shard): {"dataset", "sha256", "shard"}; the first line is
{"format": "diffpriv data manifest", "shards": n, "version": 1}. There is exactly one byte string for one content,
and no field that the audit log could not check.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from diffpriv.keys.errors import AuditError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json

_FORMAT = "diffpriv data manifest"


@dataclass(frozen=True, order=True)
class PublishedShard:
    """A published shard and the digest of its bytes."""

    dataset: str
    shard: str
    sha256: str


def encode_manifest(shards: Iterable[PublishedShard]) -> bytes:
    """The manifest's bytes: a line that says how many shards follow, then a line for each, sorted."""
    rows = sorted(shards)
    head = {"format": _FORMAT, "version": 1, "shards": len(rows)}
    return b"".join(canonical_json(line) + b"\n" for line in [head, *(vars(row) for row in rows)])


def decode_manifest(data: bytes, *, where: str = "the data manifest") -> list[PublishedShard]:
    """Raises: AuditError unless the bytes are exactly a manifest's."""
    try:
        head, *lines = data.decode().split("\n")[:-1]
        rows = [PublishedShard(**parse_json(line)) for line in lines]
        same = parse_json(head)["format"] == _FORMAT and encode_manifest(rows) == data
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AuditError(f"{where} is damaged.") from error
    if not same or len({(row.dataset, row.shard) for row in rows}) < len(rows):
        raise AuditError(f"{where} is damaged: a row was dropped, doubled, moved or altered.")
    return rows

"""A look at a dataset before a job starts: is there anything in it that nobody will be able to look into?

Files of an image folder are known by their first bytes; of tar and Parquet shards, the first of each kind is read a little.
What slips through here ends its own shard later, by the same rule.
"""

from collections.abc import Sequence
from itertools import islice

from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.formats.base import SNIFF_BYTES, Shard, is_picture, name_problem
from diffpriv.pipelines.formats.documents import RECORDS, TextCheck, what_it_is
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.sidecars import SidecarCount
from diffpriv.pipelines.storage import FileFacts, Folder

HEAD = 4096
SAMPLES = 16  # of the first shard of a kind
NAMED = 5
TEXTS = frozenset(("txt", "json", "jsonl", "ndjson", "csv", "tsv", "md", "yaml", "yml", "xml", "cls", "caption", "text"))
_ARRAYS = (b"\x93NUMPY", b"PK\x03\x04")


def refuse_unknown(source: Folder, shards: Sequence[Shard]) -> None:
    """Raises: MisuseError naming what is no picture, no text and no known document, and what to do."""
    found = [f"{shard.name}: {stopped}" for shard in _first_of_a_kind(shards) if (stopped := _peek(source, shard))]
    for shard in shards:
        if shard.format == "folder":
            found += [f"{file.name}: {what}" for file in shard.files if (what := _file(source, file))]
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        records = any(RECORDS in one for one in found)
        unpack = "Unpack MXNet's records first, with examples/unpack_recordio.py. " if records else ""
        raise MisuseError(
            f"SRC holds what nobody can look into: {'; '.join(found[:NAMED])}{more}.",
            advice=f'{unpack}Leave it out with --others drop, or publish it unseen with --others copy ("others" in job.yaml).',
        )


def _first_of_a_kind(shards: Sequence[Shard]) -> list[Shard]:
    firsts: dict[str, Shard] = {}
    for shard in shards:
        firsts.setdefault(shard.format, shard)
    return [shard for kind, shard in firsts.items() if kind != "folder"]


def _peek(source: Folder, shard: Shard) -> str:
    beside = SidecarCount("stop")
    for _ in islice(shard_format(shard.format).read(source, shard, beside=beside), SAMPLES):
        pass
    return beside.stopped


def _file(source: Folder, file: FileFacts) -> str:
    """What a file is if it is unknown. Names that promise a picture or a text are read later, as such."""
    extension = file.name.rpartition(".")[2].lower()
    if not file.regular or not file.size or extension in TEXTS or name_problem(file.name) or is_picture(file.name, b""):
        return ""
    with source.open(file.name, follow=False) as handle:
        head = handle.read(HEAD)
    check = TextCheck()
    check.feed(head, last=len(head) == file.size)
    known = check.is_text or is_picture(file.name, head[:SNIFF_BYTES])
    if known or (head.startswith(_ARRAYS) and extension in ("npy", "npz")):
        return ""  # an array is opened whole when its shard is read
    return what_it_is(head)

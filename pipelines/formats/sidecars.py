"""Fields beside the pictures that may tell who is in them: boxes, landmarks, embeddings, more pictures, unread files.

Rule "report" (the default): such a field is counted by kind and place in commit records and closing table, and published as it
was. Rule "refuse": a shard that holds one of REFUSED is not published. Rule "drop": what is one of REFUSED is left out, a key
of a JSON document, otherwise the whole field, column or file; of a JSON Lines file, every line is a document, and a line of
which nothing may stay goes. The release gate counts what is there again. They are found

    by name   a field, column, JSON key or heading of a table one of whose words is in WORDS ("face_bbox", "kps")
    by type   a number array of 64 or more values in one dimension (an embedding), of five or more points (landmarks), or of the
    or value  shape of a picture; a base64 text that starts like a picture; a container or video file by its extension

What cannot be found this way: a face described in words, a picture in an unknown encoding, steganography.
"""

import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from diffpriv.pipelines.errors import UnknownContentError
from diffpriv.pipelines.formats.arrays import FLAT, has_picture_shape, read_arrays
from diffpriv.pipelines.formats.documents import is_array, read_document

MAX_SIDECAR_BYTES = 1 << 20  # of a JSON or array file that is parsed; a larger one is reported as not looked into
EMBEDDING_LENGTH = 64
WORDS = {
    "box": "bbox bboxes box boxes rect rects roi bounding facebox xyxy xywh",
    "landmarks": "landmark landmarks lmk lmks kps keypoint keypoints eyes pupil pupils lefteye righteye leftmouth rightmouth",
    "embedding": "embedding embeddings embed emb feature features descriptor descriptors encoding encodings arcface",
    "picture": "thumbnail thumb thumbs preview crop aligned photo portrait",
    "origin": "phash dhash url uri exif gps latitude longitude geolocation",
    "identity": "identity person name names subject celebrity username",
}
# "identity" is a guess from a name only.
REFUSED = ("box", "landmarks", "embedding", "picture", "origin", "file not looked into")
LEFT_OUT = "file left out"  # findings that begin so are about what is not published
_KIND_OF = {word: kind for kind, words in WORDS.items() for word in words.split()}
_DIGEST_NAME = re.compile(r"(?<![a-z])(md5|sha-?(1|224|256|384|512))(?![a-z0-9])", re.IGNORECASE)
_JSON = ("json", "jsonl", "ndjson")
_TABLES = ("csv", "tsv", "txt")
_CELL_ENDS = re.compile(r"[,;\t|]")
HEAD_BYTES = 1 << 16  # of a text that is too long to be parsed
_BASE64_PICTURES = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "data:image/")


def kinds_of_name(name: str) -> set[str]:
    """Kinds that the words of a name announce; words end at case changes, digits and punctuation."""
    digests = {"origin"} if _DIGEST_NAME.search(name) else set()
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return digests | {_KIND_OF[word.lower()] for word in words if word.lower() in _KIND_OF}


def refusal(findings: Sequence[tuple[str, int]]) -> str:
    """Why rule "refuse" keeps a shard back, or nothing.

    Args:
        findings: of the shard, as in `ShardEnd.sidecars`.
    """
    telling = [what for what, _ in findings if what.partition(" in ")[0] in REFUSED]
    return f"it holds {', '.join(telling[:5])}{' and more' if len(telling) > 5 else ''}" if telling else ""


def is_telling(findings: Sequence[str]) -> bool:
    """Whether one of the findings "kind in place" is of REFUSED."""
    return any(what.partition(" in ")[0] in REFUSED for what in findings)


def without_telling(field: str, data: bytes | None) -> bytes | None:
    """What rule "drop" leaves of a non-picture field that `is_telling`; None: nothing.

    Args:
        data: as in `scan_file`.
    """
    extension = field.rpartition(".")[2].lower()
    if data is None or extension not in _JSON or kinds_of_name(field) & set(REFUSED):
        return None
    left = [one for one in map(_document_without_telling, _documents(extension, data)) if one is not None]
    return b"\n".join(left) if any(one.strip() for one in left) else None


def _document_without_telling(data: bytes) -> bytes | None:
    """The very bytes of a JSON document that holds nothing telling, otherwise it written anew; None: nothing of it may stay."""
    if not _is_telling_document(data):
        return data
    try:
        left = json.dumps(_without_telling(json.loads(data)), ensure_ascii=False).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None
    return None if _is_telling_document(left) else left + data[len(data.rstrip(b"\r")) :]


def _is_telling_document(data: bytes) -> bool:
    return any(kind in REFUSED for kind, _ in _scan_json(data))


def _documents(extension: str, data: bytes) -> list[bytes]:
    """The one document of a .json file, the lines of another; a document laid out over several lines is one all the same."""
    if extension != "json":
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            return data.split(b"\n")
        if b"\n" not in data.strip():
            return data.split(b"\n")
    return [data]


def _without_telling(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if not kinds_of_name(str(key)) & set(REFUSED) and not _is_telling(one)}
        return {key: _without_telling(one) for key, one in kept.items()}
    if isinstance(value, list):
        return [_without_telling(one) for one in value if not _is_telling(one)]
    return value


def _is_telling(value: Any) -> bool:
    """An embedding or a picture, by value."""
    if isinstance(value, list):
        return len(value) >= EMBEDDING_LENGTH and all(isinstance(one, float) for one in value)
    return isinstance(value, str) and len(value) > 100 and value.startswith(_BASE64_PICTURES)


def scan_file(field: str, data: bytes | None, head: bytes = b"") -> list[str]:
    """Findings "kind in field" of one non-picture field.

    Args:
        data: its bytes; None where they are too many to be parsed.
        head: its first bytes, for those.
    """
    extension = field.rpartition(".")[2].lower()
    found = {(kind, field) for kind in kinds_of_name(field)}
    found |= {(kind, f"{field}: {name}") for name in headings(extension, data or head) for kind in kinds_of_name(name)}
    if data is not None and is_array(data):
        found |= {(kind, field) for kind in _kinds_of_arrays(data)}
    elif extension in _JSON:
        if data is None:
            found.add(("file not looked into", field))
        else:
            documents = _documents(extension, data)
            found |= {(kind, f"{field}: {place}") for document in documents for kind, place in _scan_json(document)}
    return sorted(f"{kind} in {place}" for kind, place in found)


def headings(extension: str, data: bytes) -> list[str]:
    """The names above the columns of a table: the first line of CSV and TSV, and in other text a line above one of numbers."""
    if extension not in _TABLES:
        return []
    lines = data[:HEAD_BYTES].decode("utf-8-sig", "replace").splitlines()[:4]
    if extension != "txt":
        return [cell.strip(" \"'")[:100] for cell in _CELL_ENDS.split(lines[0])] if lines else []
    for above, below in itertools.pairwise(line.split() for line in lines):  # "202599", names, "000001.jpg 95 71 226 313"
        numbers = sum(_is_number(cell) for cell in below)
        if len(above) >= 3 and len(below) - len(above) in (0, 1) and 2 * numbers >= len(below):
            return [cell[:100] for cell in above if not _is_number(cell)]
    return []


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def scan_schema(schema: Any, pictures: list[str]) -> list[str]:
    """Findings of a Parquet schema, by names and types of its columns; picture columns themselves left out."""
    from pyarrow import types

    found = set()
    for column in schema:
        if column.name in pictures:
            continue
        found |= {f"{kind} in {column.name}" for kind in kinds_of_name(column.name)}
        kind = column.type
        if types.is_fixed_size_list(kind) and types.is_floating(kind.value_type) and kind.list_size >= EMBEDDING_LENGTH:
            found.add(f"embedding in {column.name}")
        if types.is_struct(kind):
            inner = [kind.field(place).name for place in range(kind.num_fields)]
            found |= {f"{what} in {column.name}.{name}" for name in inner for what in kinds_of_name(name)}
    return sorted(found)


def scan_values(column: str, kind: Any, values: Any) -> list[str]:
    """Findings in a column's values where its type alone does not tell: lists of any length, and text.

    Args:
        values: a pyarrow array of the column.
    """
    from pyarrow import compute, types

    if (types.is_list(kind) or types.is_large_list(kind)) and types.is_floating(kind.value_type):
        longest = compute.max(compute.list_value_length(values)).as_py() or 0
        return [f"embedding in {column}"] if longest >= EMBEDDING_LENGTH else []
    if types.is_string(kind) or types.is_large_string(kind):
        found: set[tuple[str, str]] = set()
        for text in values.to_pylist():
            if text and len(text) > 100 and text.startswith(_BASE64_PICTURES):
                found.add(("picture", column))
            elif text and text.lstrip()[:1] in ("{", "[") and len(text) <= MAX_SIDECAR_BYTES:
                found |= {(what, f"{column}: {place}") for what, place in _scan_json(text.encode())}
        return sorted(f"{what} in {place}" for what, place in found)
    return []


def looks_inside(kind: Any) -> bool:
    """Whether `scan_values` has something to say about a column of this type."""
    from pyarrow import types

    lists = types.is_list(kind) or types.is_large_list(kind)
    return types.is_string(kind) or types.is_large_string(kind) or (lists and types.is_floating(kind.value_type))


def _scan_json(data: bytes) -> set[tuple[str, str]]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return set()
    found: set[tuple[str, str]] = set()
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            for key, one in value.items():
                found |= {(kind, str(key)[:100]) for kind in kinds_of_name(str(key))}
                waiting.append((str(key)[:100], one))
        elif isinstance(value, list):
            if _is_telling(value):
                found.add(("embedding", place or "list"))
            else:
                waiting += [(place, one) for one in value if isinstance(one, (dict, list, str))]
        elif _is_telling(value):
            found.add(("picture", place or "text"))
    return found


def _kinds_of_arrays(data: bytes) -> set[str]:
    found = set()
    for values in (read_arrays(data) or {}).values():
        shape, count = values.shape, values.size
        if has_picture_shape(shape) or (values.dtype == "uint8" and count >= FLAT):
            found.add("picture")
        elif shape and shape[-1] in (2, 3) and 5 <= count // shape[-1] <= 1000:
            found.add("landmarks")
        elif values.dtype.kind == "f" and count >= EMBEDDING_LENGTH:
            found.add("embedding")
        elif shape and shape[-1] == 4 and len(shape) <= 2:
            found.add("box")
    return found


class Head:
    """Keeps the first HEAD_BYTES of what is read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.data = b""

    def read(self, size: int) -> bytes:
        chunk = self._read(size)
        if len(self.data) < HEAD_BYTES:
            self.data += chunk[: HEAD_BYTES - len(self.data)]
        return chunk


class SidecarCount:
    """Is shown what lies beside the pictures of a shard, and counts what was found.

    Attributes:
        wants_columns: whether `column` is to be shown every column without pictures.
        stopped: what ended the shard, under rule "stop".
    Args:
        others: what becomes of content that nobody can look into: "copy" counts it, "drop" also notes it in `left_out`, "stop"
            ends the shard.
    """

    wants_columns = False

    def __init__(self, others: str = "copy") -> None:
        self._found: Counter[str] = Counter()
        self._others = others
        self.left_out: list[tuple[int, str]] = []
        self.stopped = ""

    @property
    def stops(self) -> bool:
        return self._others == "stop"

    def member(
        self, index: int, key: str, field: str, read: Callable[[int], bytes], *, keep: int = 0, kind: str | None = None
    ) -> bytes | None:
        """Look at one member or file; its bytes if there are no more than `keep` or MAX_SIDECAR_BYTES.

        Args:
            field: its name in the sample. kind: what it is counted as, where that is not its field.
        Raises:
            UnknownContentError: nobody can look into it, and the rule is "stop".
        """
        head = Head(read)
        data, unknown = read_document(head.read, max(keep, MAX_SIDECAR_BYTES))
        name = kind if kind is not None else field
        if unknown:
            self.unknown(index, key, field, name, unknown)
        else:
            self.known(name, data, head.data)
        return data

    def value(self, index: int, key: str, field: str, column: str, value: bytes) -> None:
        """Look at one binary value of a column."""
        self.member(index, key, field, io.BytesIO(value).read, kind=column)

    def known(self, name: str, data: bytes | None, head: bytes = b"") -> None:
        """Count what a text or an array of this name holds.

        Args:
            head: as in `scan_file`.
        """
        small = data if data is not None and len(data) <= MAX_SIDECAR_BYTES else None
        self._found.update(scan_file(name, small, head))

    def unknown(self, index: int, key: str, field: str, name: str, what: str) -> None:
        if self._others == "stop":
            self.stopped = f"{field or 'member'!r} of {key!r}: {what}"
            raise UnknownContentError(
                f"{field or 'member'!r} of {key!r} is {what}, which nobody looked into.",
                advice='Leave it out with --others drop, or publish it unseen with --others copy ("others" in job.yaml).',
            )
        if self._others == "drop":
            self.left_out.append((index, field))
            self._found[f"{LEFT_OUT} in {name}"] += 1
        else:
            self._found[f"file not looked into in {name}"] += 1

    def ignored(self, pattern: str) -> None:
        """Count a file that is passed over since its name fits the pattern."""
        self._found[f"{LEFT_OUT} in {pattern}"] += 1

    def schema(self, schema: Any) -> None:
        """Look at a Parquet file's schema, metadata included."""

    def column(self, name: str, kind: Any, values: Any) -> None:
        """Look at a piece of a column that holds no pictures."""

    def add(self, findings: list[str], times: int = 1) -> None:
        for finding in findings:
            self._found[finding] += times

    def items(self) -> tuple[tuple[str, int], ...]:
        return tuple(sorted(self._found.items()))

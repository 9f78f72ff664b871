"""Fields beside the pictures that may tell who is in them: boxes, landmarks, embeddings, more pictures, unread files.

Rule "report" (the default): such a field is counted by kind and place in commit records and closing table, and published as it
was. Rule "refuse": a shard that holds one of REFUSED is not published. Rule "drop": what is one of REFUSED is left out, a key
of a JSON document, otherwise the whole field, column or file; of a JSON Lines file, every line is a document, and a line of
which nothing may stay goes. The release gate counts what is there again. They are found

    by name   a field, column or JSON key one of whose words is in WORDS ("face_bbox", "arcfaceEmbedding", "kps")
    by type   a number array of 64 or more values in one dimension (an embedding), of five or more points (landmarks), or of the
    or value  shape of a picture; a base64 text that starts like a picture; a container or video file by its extension

What cannot be found this way: a face described in words, a picture in an unknown encoding, steganography.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

MAX_SIDECAR_BYTES = 1 << 20  # of a JSON or array file that is parsed; a larger one is reported as not looked into
EMBEDDING_LENGTH = 64
WORDS = {
    "box": "bbox bboxes box boxes rect rects roi bounding facebox xyxy xywh",
    "landmarks": "landmark landmarks lmk lmks kps keypoint keypoints eyes pupil pupils",
    "embedding": "embedding embeddings embed emb feature features descriptor descriptors encoding encodings arcface",
    "picture": "thumbnail thumb thumbs preview crop aligned photo portrait",
    "identity": "identity person name names subject celebrity username",
}
REFUSED = ("box", "landmarks", "embedding", "picture", "file not looked into")  # "identity" is a guess from a name only
_KIND_OF = {word: kind for kind, words in WORDS.items() for word in words.split()}
_OPAQUE_NAMES = "zip tar gz 7z rar pkl pickle pt pth npz mat h5 hdf5 mp4 mov avi mkv webm pdf psd lmdb db rec tfrecord"
_OPAQUE = frozenset(_OPAQUE_NAMES.split())
_JSON = ("json", "jsonl", "ndjson")
_BASE64_PICTURES = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "data:image/")


def kinds_of_name(name: str) -> set[str]:
    """Kinds that the words of a name announce; words end at case changes, digits and punctuation."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {_KIND_OF[word.lower()] for word in words if word.lower() in _KIND_OF}


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


def scan_file(field: str, data: bytes | None) -> list[str]:
    """Findings "kind in field" of one non-picture field.

    Args:
        data: its bytes; None where they are too many to be parsed.
    """
    extension = field.rpartition(".")[2].lower()
    found = {(kind, field) for kind in kinds_of_name(field)}
    if extension in _OPAQUE:
        found.add(("file not looked into", field))
    elif extension in (*_JSON, "npy"):
        if data is None:
            found.add(("file not looked into", field))
        elif extension == "npy":
            found |= {(kind, field) for kind in _kinds_of_array_file(data)}
        else:
            documents = _documents(extension, data)
            found |= {(kind, f"{field}: {place}") for document in documents for kind, place in _scan_json(document)}
    return sorted(f"{kind} in {place}" for kind, place in found)


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


def _kinds_of_array_file(data: bytes) -> set[str]:
    import numpy as np

    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except (ValueError, EOFError):
        return {"file not looked into"}
    if kind == np.uint8 and len(shape) in (2, 3) and min(shape[:2]) >= 16:
        return {"picture"}
    if len(shape) >= 1 and shape[-1] in (2, 3) and 5 <= int(np.prod(shape[:-1])) <= 1000:
        return {"landmarks"}
    if kind.kind == "f" and len(shape) >= 1 and max(shape) >= EMBEDDING_LENGTH and len([n for n in shape if n > 1]) == 1:
        return {"embedding"}
    if len(shape) >= 1 and shape[-1] == 4 and len(shape) <= 2:
        return {"box"}
    return set()


class SidecarCount:
    """Counts findings over a shard."""

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()

    def file(self, field: str, data: bytes | None) -> None:
        self._found.update(scan_file(field, data))

    def add(self, findings: list[str], times: int = 1) -> None:
        for finding in findings:
            self._found[finding] += times

    def items(self) -> tuple[tuple[str, int], ...]:
        return tuple(sorted(self._found.items()))

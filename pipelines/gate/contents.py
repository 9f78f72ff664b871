"""What lies beside a published shard's pictures, known by its content: an allow-list, since lists of what is bad never end.

A field passes if it proves to be one of
    text      UTF-8 words and numbers (`gate.text`), whole values and all values of a field together
    JSON      an object, list or lines of text, numbers and booleans, with at most MAX_NUMBERS numbers in a document, every key
              once
    numbers   columns, arrays and values that repeat over a shard's samples: neither a picture to the detector nor packed data
              (`gate.numbers`)
Everything else is a finding "not checked" with the field and the reason. A field's name decides nothing.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from diffpriv.pipelines.formats.arrays import FLAT, nested_array, read_arrays
from diffpriv.pipelines.formats.columns import storage, storage_type
from diffpriv.pipelines.formats.documents import read_document
from diffpriv.pipelines.formats.sidecars import HEAD_BYTES, SidecarCount
from diffpriv.pipelines.gate.numbers import FEW_KINDS, Look, holds_file, why_not_numbers, why_not_wide
from diffpriv.pipelines.gate.text import why_not_words

MAX_BYTES = 64 << 20  # of one text or array
MAX_LIST = 64
MAX_NUMBERS = 1024
MAX_DIGITS = 25
UNEVEN = 0.05  # share of a table's lines that may be blank or of another length
FEW = 4  # numbers in a text that say nothing by themselves
MAX_COLUMNS = 256
MAX_SEQUENCE = 1 << 20  # numbers of a field that are kept for a look at all of them
WINDOW = 1 << 16  # characters of a field that are judged together
_NUMBER = re.compile(r"(?<![^\W_])(?<!\.)[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![^\W_])")
_COUNTED = re.compile(r"(?<![^\W_])(?:([A-Za-z]{1,6})(\d+)|(\d+)([a-z]{1,2}))(?![^\W_])")  # "img0001", "n01440764", "12b"
_SEPARATOR = re.compile(r"[,;\t| _]+")
ADVICE = "leave it out (sidecars: drop, --others drop), or let it pass by name with --allow"


class FieldWitness(SidecarCount):
    """Is shown everything of a shard that is no picture.

    Attributes:
        problems: (kind of finding, field, reason) -> how often.
    Args:
        look: whether a picture shows a face.
    """

    wants_columns = True

    def __init__(self, look: Look) -> None:
        super().__init__("copy")
        self.problems: Counter[tuple[str, str, str]] = Counter()
        self._look = look
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._lengths: Counter[str] = Counter()
        self._numbers: dict[str, list[float]] = defaultdict(list)
        self._wide: dict[str, list[Any]] = defaultdict(list)  # the same exactly: whole numbers, or arrays of floats
        self._names: set[tuple[str, str]] = set()

    def _problem(self, kind: str, field: str, reason: str) -> None:
        self.problems[kind, field, reason] += 1

    def unknown(self, index: int, key: str, field: str, name: str, what: str) -> None:
        self._problem("not checked", name, f"{what}: {ADVICE}")

    def name(self, of: str, text: str) -> None:
        """Look at a name that is published: of a sample, a member or a column."""
        if (of, text) not in self._names:
            if of != "samples":  # which have a name each
                self._names.add((of, text))
            self._words(f"names of {of}", _COUNTED.sub(lambda part: " ".join(filter(None, part.groups())), text))

    def member(
        self, index: int, key: str, field: str, read: Callable[[int], bytes], *, keep: int = 0, kind: str | None = None
    ) -> bytes | None:
        if kind is None:
            self.name("members", field)
        data, unknown = read_document(read, MAX_BYTES)
        name = kind if kind is not None else field
        if unknown:
            self.unknown(index, key, field, name, unknown)
        elif data is None:
            self._problem("not checked", name, f"it has more than {MAX_BYTES >> 20} MB: {ADVICE}")
        else:
            self.known(name, data, data[:HEAD_BYTES])
            self._document(name, data)
        return data

    def schema(self, schema: Any) -> None:
        numbers = sum(_number_columns(field.type) for field in schema)
        if numbers > MAX_COLUMNS:
            self._problem("not checked", "", f"{numbers} columns of numbers, which a row may hold a picture in: {ADVICE}")
        for name, value in (schema.metadata or {}).items():
            self._document(f"metadata {name.decode('utf-8', 'replace')[:40]}", value)
        for name in _column_names(schema):
            self.name("columns", name)
        for field in schema:
            for name, value in (field.metadata or {}).items():
                if not name.startswith(b"PARQUET:"):
                    self._document(f"metadata {name.decode('utf-8', 'replace')[:40]} of {field.name}", value)

    def column(self, name: str, kind: Any, values: Any) -> None:
        from pyarrow import types

        values = storage(values)
        kind = storage_type(values.type)
        if types.is_dictionary(kind):
            self.column(name, kind.value_type, values.cast(kind.value_type))
        elif types.is_null(kind):
            return
        elif types.is_boolean(kind):
            self._switches(name, values)
        elif types.is_integer(kind) or types.is_floating(kind) or types.is_temporal(kind):
            self._column(name, kind, values)
        elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            for text in values.to_pylist():
                if text:
                    self._string(name, text)
        elif types.is_struct(kind):
            for place in range(kind.num_fields):
                self.column(f"{name}.{kind.field(place).name}", kind.field(place).type, values.field(place))
        elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            self._lists(name, values)
        elif types.is_decimal(kind):
            exact = [int("".join(map(str, one.as_tuple().digits))) for one in values.to_pylist() if one is not None]
            self._sequence(name, np.array(exact, np.float64))
            self._exactly(name, exact)
        else:
            self._problem("not checked", name, f"a column of type {kind}: {ADVICE}")

    def _column(self, name: str, kind: Any, values: Any) -> None:
        """Numbers, dates and times; which of them are missing is one more number each."""
        from pyarrow import types

        if values.null_count:
            self._switches(f"{name}, where it is empty", values.is_null())
        values = values.drop_null()
        if types.is_temporal(kind):
            values = values.view("int32" if kind.bit_width == 32 else "int64") if kind.bit_width <= 64 else values.cast("int64")
        numbers = values.to_numpy(zero_copy_only=False)
        self._sequence(name, numbers.astype(np.float64))
        if numbers.dtype.kind == "f":
            self._exactly(name, [numbers])
        elif numbers.dtype.itemsize > 1:
            self._exactly(name, numbers.tolist())

    def _switches(self, name: str, values: Any) -> None:
        """Booleans, eight of which are a byte."""
        bits = values.drop_null().to_numpy(zero_copy_only=False).astype(np.uint8)
        self._exactly(f"{name}, by eights", np.packbits(bits).tolist())
        self._exactly(f"{name}, by eights from the right", np.packbits(bits, bitorder="little").tolist())

    def _exactly(self, field: str, numbers: list[Any]) -> None:
        kept = self._wide[field]
        kept += numbers[: MAX_SEQUENCE - len(kept)]

    def _lists(self, name: str, values: Any) -> None:
        from pyarrow import compute

        self._sequence(f"{name}, how long", compute.list_value_length(values.drop_null()).to_numpy(zero_copy_only=False))
        inner = storage(values.flatten())
        if len(inner) and storage_type(inner.type).num_fields == 0:
            for one in values:
                array = nested_array(one.as_py()) if one.is_valid else None
                if array is not None and array.size > MAX_LIST:
                    self._array(name, array)
        self.column(f"{name}[]", inner.type, inner)

    def close(self) -> None:
        """Judge all values of each field together."""
        for field in list(self._texts):
            self._judge_window(field)
        for field, numbers in self._numbers.items():
            kind, reason = why_not_numbers(np.array(numbers), self._look)
            if kind:
                self._problem(kind, field, f"all values in a row: {reason}")
        for field, exact in self._wide.items():
            floats = bool(exact) and isinstance(exact[0], np.ndarray)
            kind, reason = why_not_wide(np.concatenate(exact) if floats else exact)
            if kind:
                self._problem(kind, field, f"{reason}: {ADVICE}")

    def _document(self, field: str, data: bytes) -> None:
        arrays = read_arrays(data)
        if arrays is not None:
            for name, values in arrays.items():
                self.name("arrays", name.removesuffix(".npy"))
                self._array(f"{field} {name}".strip(), values)
            if holds_file(np.frombuffer(data, np.uint8)[1:]) and not data.startswith(b"PK"):
                self._problem("sidecar: picture", field, "its bytes hold those of a file")
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self._problem("not checked", field, f"not UTF-8: {ADVICE}")
            return
        self._string(field, text)

    def _string(self, field: str, text: str) -> None:
        """A text: JSON, JSON Lines, or words."""
        if text.lstrip()[:1] in ("{", "["):
            documents = [text] if _is_json(text) else text.splitlines()
            if all(_is_json(one) for one in documents if one.strip()):
                for one in documents:
                    if one.strip():
                        self._json(field, one)
                return
        if _NUMBER.fullmatch(text.strip()) and len(text) <= MAX_DIGITS:
            self._sequence(field, [float(text)])
            self._text_numbers(field, [text.strip()])
            return
        self._words(field, text)
        self._table(field, text)

    def _json(self, field: str, text: str) -> None:
        numbers = 0
        waiting: list[tuple[str, Any]] = [(field, json.loads(text, object_pairs_hook=_Pairs))]
        while waiting:
            place, value = waiting.pop()
            if isinstance(value, _Pairs):
                if len({key for key, _ in value.pairs}) < len(value.pairs):
                    self._problem("not checked", place, "JSON with a key twice, of which readers see one")
                for key, one in reversed(value.pairs):  # what waits last is looked at first
                    self._words(f"{field}: keys", key)
                    waiting.append((f"{field}: {key[:100]}", one))
            elif isinstance(value, list):
                array = nested_array(value) if value and not isinstance(value[0], (_Pairs, str)) else None
                if array is not None and array.size > MAX_LIST:
                    numbers += array.size
                    self._array(place, array)
                    if array.size > MAX_NUMBERS:
                        self._problem("not checked", place, f"a list of {array.size} numbers: {ADVICE}")
                else:
                    waiting += [(place, one) for one in reversed(value)]
            elif isinstance(value, str):
                self._words(place, value)
                numbers += self._table(place, value)
            elif isinstance(value, (int, float)):
                numbers += 1
                if len(str(value)) > MAX_DIGITS:
                    self._problem("not checked", place, "a number of more digits than numbers have")
                else:
                    self._sequence(place, [float(value)])
                    if isinstance(value, int):
                        self._exactly(place, [value])
        if numbers > MAX_NUMBERS:
            self._problem("not checked", field, f"a document of {numbers} numbers: {ADVICE}")

    def _words(self, field: str, text: str) -> None:
        reason = why_not_words(text)
        if reason:
            self._problem("not checked", field, f"{reason}: {ADVICE}")
            return
        self._texts[field].append(text)
        self._lengths[field] += len(text)
        if self._lengths[field] >= WINDOW:
            self._judge_window(field)

    def _judge_window(self, field: str) -> None:
        values = self._texts.pop(field, [])
        self._lengths[field] = 0
        reason = why_not_words(" ".join(values)) if len(values) > 1 else ""
        if reason:
            self._problem("not checked", field, f"its values together: {reason}: {ADVICE}")

    def _table(self, field: str, text: str) -> int:
        """Numbers in a text, by columns and in a row; returns how many."""
        found = _NUMBER.findall(text)
        self._text_numbers(f"{field}: numbers in text", found)
        if len(found) < FLAT:
            if len(found) >= FEW:  # a picture may be spread over many values
                self._sequence(f"{field}: numbers in text", np.array(found, np.float64))
            return len(found)
        rows = [_SEPARATOR.split(line.strip()) for line in text.splitlines() if line.strip()]
        most = max(len(_NUMBER.findall(line)) for line in text.splitlines())
        if most > MAX_LIST:
            self._problem("not checked", field, f"a line of {most} numbers: {ADVICE}")
        if len(found) > MAX_NUMBERS and _is_loose(text, rows):
            self._problem("not checked", field, f"{len(found)} numbers that are neither a table nor among words: {ADVICE}")
        kind, reason = why_not_numbers(np.array(found, np.float64), self._look)
        if kind:
            self._problem(kind, field, f"its numbers in a row: {reason}")
        if all(one.isdigit() and set(one) <= set("01234567") for one in found) and holds_file(
            np.array([min(int(one, 8), 999) for one in found])
        ):
            self._problem("sidecar: picture", field, "its numbers are the bytes of a file in octal")
        for place in range(min(max(map(len, rows)), MAX_LIST)):
            column = [row[place] for row in rows if len(row) > place and _NUMBER.fullmatch(row[place])]
            self._sequence(f"{field}, column {place + 1}", np.array(column, np.float64))
        return len(found)

    def _text_numbers(self, field: str, found: list[str]) -> None:
        self._exactly(field, [int(one) for one in found if one.isdigit() and len(one) <= MAX_DIGITS])

    def _array(self, field: str, values: np.ndarray) -> None:
        kind, reason = why_not_numbers(values, self._look)
        if not kind and (values.dtype.itemsize > 1 or values.max(initial=0) < FEW_KINDS):
            kind, reason = why_not_wide(values.reshape(-1)[:MAX_SEQUENCE])
        if kind:
            self._problem(kind, field, f"{reason}: {ADVICE}" if kind == "not checked" else reason)
        elif max(values.shape, default=0) == values.size > MAX_NUMBERS:
            self._problem("not checked", field, f"{values.size} numbers in a row: {ADVICE}")

    def _sequence(self, field: str, numbers: Any) -> None:
        kept = self._numbers[field]
        kept.extend(numbers[: MAX_SEQUENCE - len(kept)])


def _is_loose(text: str, rows: list[list[str]]) -> bool:
    """Whether a text is mostly digits, and not laid out as a table: rows of one length, without blank lines between them."""
    letters = sum(char.isalpha() for char in text)
    if letters > sum(char.isdigit() for char in text) / 4:
        return False
    usual = Counter(map(len, rows)).most_common(1)[0][1]
    return usual < (1 - UNEVEN) * len(rows) or len(rows) < (1 - UNEVEN) * len(text.strip().splitlines())


def _column_names(fields: Any) -> list[str]:
    """Names of columns and of what is in them; `fields` is a schema or a struct."""
    from pyarrow import types

    names = []
    for field in fields:
        names.append(field.name)
        kind = storage_type(field.type)
        while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind = storage_type(kind.value_type)
        if types.is_struct(kind):
            names += _column_names([kind.field(place) for place in range(kind.num_fields)])
    return names


def _number_columns(kind: Any) -> int:
    from pyarrow import types

    kind = storage_type(kind)
    if types.is_struct(kind):
        return sum(_number_columns(kind.field(place).type) for place in range(kind.num_fields))
    return int(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


class _Pairs:
    """A JSON object with all its pairs, also those that a later one hides."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True

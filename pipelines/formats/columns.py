"""Which columns of a Parquet file hold pictures, how a value becomes pictures, and how new ones are put back.

binary     a binary value of any Arrow kind, dictionary-encoded ones too      field: the column's name
struct     Hugging Face's {bytes, path}                                       field: the column's name
list       a list of either (`List(Image)`)                                   field: "name[0]", "name[1]", ...
array      numbers from 0 to 255 in the shape of a picture, nested or flat with a known shape (Hugging Face's Array2D and
           Array3D, Ray's and Arrow's tensors): shown as PNG, put back as numbers
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.arrays import FLAT, SMALL_SIDE, has_picture_shape

MAYBE_PICTURE = "a list of numbers that may be a picture"


@dataclass(frozen=True)
class PictureColumn:
    """Attributes:
    kind: "binary", "struct", "list", "array".
    shape: of a flat array, where its schema says it.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()


class PathOnlyError(Exception):
    """A picture is given as the path of another file."""


def picture_columns(schema: Any) -> dict[str, PictureColumn]:
    """Columns that may hold pictures, by name.

    Raises:
        ShardError: binary values lie deeper than this tool looks, or two columns have one name.
    """
    if len(set(schema.names)) != len(schema.names):
        raise ShardError("the Parquet file has two columns of one name.")
    found = {}
    for field in schema:
        kind = storage_type(field.type)
        if is_binary(kind):
            found[field.name] = PictureColumn(field.name, "binary")
        elif is_image_struct(kind):
            found[field.name] = PictureColumn(field.name, "struct")
        elif _is_list(kind) and (is_binary(storage_type(kind.value_type)) or is_image_struct(storage_type(kind.value_type))):
            found[field.name] = PictureColumn(field.name, "list")
        elif holds_binary(kind):
            raise ShardError(
                f"column {field.name!r} nests binary values ({field.type}), which this tool does not look into.",
                advice="Move the pictures to a column of their own, or drop the column.",
            )
        elif _is_list(kind) and _leaf(kind) is not None:
            found[field.name] = PictureColumn(field.name, "array", _shape(field))
        elif _is_shaped(kind):
            found[field.name] = PictureColumn(field.name, "array")
    return found


def storage_type(kind: Any) -> Any:
    """What an extension type stores."""
    import pyarrow as pa

    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind


def storage(values: Any) -> Any:
    """An array of an extension type as what it stores."""
    import pyarrow as pa

    while isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    return values


def is_binary(kind: Any) -> bool:
    """Whether an Arrow type is of bytes, dictionaries of bytes included."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_binary(kind.value_type)
    return (
        types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind)
    )


def is_image_struct(kind: Any) -> bool:
    """Whether an Arrow type is a struct of picture bytes and fields that hold none."""
    from pyarrow import types

    if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    others = [kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name != "bytes"]
    return is_binary(kind.field("bytes").type) and not any(is_binary(o) or holds_binary(o) for o in others)


def holds_binary(kind: Any) -> bool:
    """Whether an Arrow type has bytes at any depth."""
    kind = storage_type(kind)
    inner = [storage_type(kind.field(i).type) for i in range(kind.num_fields)]
    return any(is_binary(one) or holds_binary(one) for one in inner)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or views


def _leaf(kind: Any) -> Any:
    """The number type at the bottom of nested lists, or None; one-dimensional floats are embeddings, not pictures."""
    from pyarrow import types

    depth = 0
    while _is_list(kind):
        kind, depth = storage_type(kind.value_type), depth + 1
    if types.is_integer(kind) or types.is_boolean(kind) or (types.is_floating(kind) and depth > 1):
        return kind
    return None


def _is_shaped(kind: Any) -> bool:
    """Ray's tensors of variable shape: struct<data: list<number>, shape: list<integer>>."""
    from pyarrow import types

    if not types.is_struct(kind) or {kind.field(i).name for i in range(kind.num_fields)} != {"data", "shape"}:
        return False
    data = storage_type(kind.field("data").type)
    return _is_list(data) and (_leaf(data) is not None or types.is_floating(data.value_type))


def _shape(field: Any) -> tuple[int, ...]:
    shape = getattr(field.type, "shape", None)
    if shape is None:
        try:
            written = json.loads((field.metadata or {})[b"ARROW:extension:metadata"])
            shape = written["shape"] if isinstance(written, dict) else written
        except (KeyError, ValueError, TypeError):
            return ()
    whole = isinstance(shape, (list, tuple)) and all(isinstance(side, int) and side > 0 for side in shape)
    return tuple(shape) if whole else ()


def pictures_of(column: PictureColumn, scalar: Any) -> list[tuple[str, bytes]]:
    """(field, bytes) of every binary value or picture-shaped array in one value; the caller says which are pictures.

    Raises:
        PathOnlyError: a picture is only a path.
    """
    if column.kind == "array":
        array = as_array(column, scalar)
        pixels = _as_pixels(array) if array is not None else None
        return [] if pixels is None else [(column.name, _png(pixels))]
    value = scalar.as_py()
    if value is None:
        return []
    if column.kind == "list":
        inner = [(f"{column.name}[{place}]", _bytes(one)) for place, one in enumerate(value)]
        return [(field, one) for field, one in inner if one is not None]
    one = _bytes(value)
    return [] if one is None else [(column.name, one)]


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        if value["bytes"] is None and value.get("path"):
            raise PathOnlyError
        return value["bytes"]
    return value


def put_back(column: PictureColumn, scalar: Any, new: Mapping[str, bytes | None]) -> Any:
    """The value, as Python sees it, with other bytes in some of its fields; None leaves the value out."""
    value = scalar.as_py()
    if column.kind == "list":
        return [_with_bytes(one, new, f"{column.name}[{place}]") for place, one in enumerate(value)]
    if new[column.name] is None:
        return None
    if column.kind != "array":
        return _with_bytes(value, new, column.name)
    array = as_array(column, scalar)
    pixels = _from_png(new[column.name] or b"")
    made = _like(array, pixels)
    if isinstance(value, dict):
        return {**value, "data": made.reshape(-1).tolist()}
    return made.reshape(-1).tolist() if column.shape else made.tolist()


def _with_bytes(value: Any, new: Mapping[str, bytes | None], field: str) -> Any:
    if field not in new:
        return value
    data = new[field]
    if data is None:
        return None
    return {**value, "bytes": data} if isinstance(value, dict) else data


def as_array(column: PictureColumn, scalar: Any) -> np.ndarray | None:
    """A value of an array column in its shape; None for null and for ragged lists."""
    if not scalar.is_valid:
        return None
    if hasattr(scalar, "keys"):  # {data, shape}
        data, shape = scalar["data"], scalar["shape"].as_py()
        values = _flat(data.values)[0] if data.is_valid else None
        if values is None or not shape or int(np.prod(shape)) != values.size:
            return values
        return values.reshape(shape)
    values, shape = _flat(scalar.values)
    if values is None:
        return None
    if column.shape and int(np.prod(column.shape)) == values.size:
        return values.reshape(column.shape)
    return values.reshape(shape)


def _flat(values: Any) -> tuple[np.ndarray | None, tuple[int, ...]]:
    """All numbers below a list, and its shape; (numbers, flat) where rows differ in length."""
    shape = [len(values)]
    values = storage(values)
    while _is_list(values.type):
        length, before = 0, len(values)
        values = storage(values.flatten())
        length = len(values) // before if before else 0
        shape.append(length)
    try:
        numbers = values.to_numpy(zero_copy_only=False)
    except (ValueError, TypeError):
        return None, ()
    if numbers.dtype.kind not in "biuf":
        return None, ()
    return numbers, tuple(shape) if int(np.prod(shape)) == numbers.size else (numbers.size,)


def _as_pixels(array: np.ndarray) -> np.ndarray | None:
    """(height, width) or (height, width, 3 or 4) uint8 of an array that is one picture; else None."""
    if array.dtype.kind not in "iu" or not has_picture_shape(array.shape) or array.min() < 0 or array.max() > 255:
        return None
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    return np.ascontiguousarray(array.astype(np.uint8)) if fits and min(array.shape[:2]) >= SMALL_SIDE else None


def unseen(column: PictureColumn, scalar: Any) -> str:
    """What a value of an array column is if it may be a picture that `pictures_of` does not show; else ""."""
    array = as_array(column, scalar)
    if array is None or array.size < FLAT or _as_pixels(array) is not None:
        return ""
    return MAYBE_PICTURE if has_picture_shape(array.shape) or array.ndim == 1 else ""


def _like(array: Any, pixels: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    return pixels.reshape(array.shape).astype(array.dtype)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", compress_level=6)
    return out.getvalue()


def _from_png(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)

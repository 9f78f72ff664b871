"""PNG with 16 bits in each of three or four channels, which Pillow would cut to 8: read by OpenCV, written by both.

The pixels are OpenCV's chunks (IHDR, IDAT), all other chunks those that Pillow writes for the same picture with 8 bits.
"""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.saving import png_chunks
from diffpriv.pipelines.quarantine import Code

_COLOUR_TYPES = (2, 4, 6)  # RGB, grey with alpha, RGB with alpha
_COMPRESSION = 6


def is_deep(data: bytes) -> bool:
    """Whether a PNG has 16 bits in each of several channels (PNG 3rd ed., 11.2.1: bit depth, colour type)."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24] == 16 and data[25] in _COLOUR_TYPES


def read_deep(data: bytes) -> np.ndarray:
    """(height, width, 3 or 4) uint16, as stored. Raises: BadImageError."""
    kinds = {kind for kind, _ in png_chunks(data)}
    if kinds & {b"tRNS", b"acTL"}:
        what = "an animation" if b"acTL" in kinds else "a transparent colour"
        raise BadImageError(f"a PNG of 16 bits a channel with {what} cannot be written back", code=Code.UNSUPPORTED)
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise BadImageError("the picture's 16 bits a channel cannot be read")
    order = cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(values, order)


def write_deep(values: np.ndarray, options: dict[str, Any]) -> bytes:
    """The file of such a picture.

    Args:
        options: as Pillow's PNG writer takes them.
    """
    order = cv2.COLOR_RGB2BGR if values.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    done, pixels = cv2.imencode(".png", cv2.cvtColor(values, order), [cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION])
    if not done:
        raise BadImageError("the picture's 16 bits a channel cannot be written")
    out = io.BytesIO()
    Image.new("RGB" if values.shape[2] == 3 else "RGBA", (1, 1)).save(out, "PNG", **options)
    deep = list(png_chunks(pixels.tobytes()))
    made = [out.getvalue()[:8]]
    for kind, body in png_chunks(out.getvalue()):
        if kind in (b"IHDR", b"IDAT"):
            made += [_chunk(kind, one) for name, one in deep if name == kind]
        else:
            made.append(_chunk(kind, body))
    return b"".join(made)


def deep_range(values: np.ndarray) -> tuple[int, int]:
    """Between percentiles: one hot pixel must not make all others black."""
    low, high = np.percentile(values, (0.1, 99.9))
    return int(low), max(int(high), int(low) + 1)


def shown(values: np.ndarray) -> np.ndarray:
    """16-bit values stretched to uint8. Unstretched, 12 bits of a camera would be black to a detector, and a face nobody sees
    is a leak."""
    low, high = deep_range(values)
    made = np.empty(values.shape, np.uint8)
    for place in np.ndindex(values.shape[2:]):  # a channel at a time: eight bytes a number
        stretched = np.rint((values[(..., *place)].astype(np.float64) - low) * (255 / (high - low)))
        made[(..., *place)] = np.clip(stretched, 0, 255)
    return made


def with_shown(values: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The values with what `pixels` shows, in the range of the old; where it shows the same, the old ones stay.

    Args:
        pixels: uint8, of the shape of `values`.
    """
    low, high = deep_range(values)
    new = np.rint(low + pixels.astype(np.float64) * ((high - low) / 255)).astype(np.uint16)
    changed = pixels != shown(values)
    if values.ndim == 3:
        changed = changed.any(axis=2, keepdims=True)
    return np.where(changed, new, values)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

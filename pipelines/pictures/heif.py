"""AVIF and HEIC: what their files hold (ISO/IEC 14496-12 boxes, 23008-12 items, AV1 OBUs), and how they are written.

Pillow reads and writes AVIF; HEIC needs the package pillow-heif (extra `heic`). What this installation cannot read is refused.

changed         at the highest quality that does not outgrow the original by a tenth
written anew    AVIF the same, as one tile by one thread; HEIC without loss, so that the file equals its pixels written anew
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, features

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.quarantine import Code

BRANDS = frozenset(b"avif avis heic heix heim heis hevc hevx hevm hevs mif1 msf1 miaf".split())
QUALITIES = (95, 90, 85, 80, 75, 60)
GROWTH = 1.1
_LOSSLESS = {"quality": -1, "matrix_coefficients": 0, "chroma": "444"}
_FIXED = {"AVIF": {"speed": 8, "max_threads": 1, "autotiling": False}, "HEIF": {}}
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6}  # box -> bytes before the boxes in it
_PICTURES = (b"av01", b"hvc1", b"grid", b"iovl", b"iden", b"tmap", b"jpeg")
_GAIN_MAPS = (b"http://ns.adobe.com/hdr-gain-map/", b"urn:iso:std:iso:ts:21496:-1", b"aux:hdrgainmap", b"tmapGMap")
_LONGEST = 1 << 20  # bytes of a box that are read
_DELIMITER, _SEQUENCE, _FRAME = 2, 1, 6  # types of AV1 OBUs


def readable() -> tuple[str, ...]:
    """Pillow's names of the formats that this installation reads and writes."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return ("AVIF",) if features.check("avif") else ()
    register_heif_opener(thumbnails=False)
    return ("AVIF", "HEIF") if features.check("avif") else ("HEIF",)


def format_of(data: bytes) -> str:
    """Pillow's name, "AVIF" or "HEIF", by the brands that the file says it is compatible with."""
    end = min(struct.unpack_from(">I", data)[0], 256)
    brands = {data[place : place + 4] for place in (8, *range(16, end, 4))}
    return "AVIF" if brands & {b"avif", b"avis"} else "HEIF"


def has_gain_map(data: bytes) -> bool:
    """Whether a picture's file says that it brings a gain map: Ultra HDR's or Apple's, in a JPEG, AVIF or HEIC."""
    return any(mark in data for mark in _GAIN_MAPS)


def check_depth(data: bytes, image: Image.Image) -> None:
    """Raises: BadImageError for more than 8 bits a channel, which Pillow would cut in silence."""
    depths = [depth for kind, start, end in _boxes(data) if kind == b"pixi" for depth in data[start + 5 : end]]
    if max([int(image.info.get("bit_depth") or 8), *depths]) > 8:
        why = "the picture has more than 8 bits a channel, which would be lost; convert it to 16-bit PNG"
        raise BadImageError(why, code=Code.UNSUPPORTED)


def other_pictures(data: bytes) -> int:
    """How many pictures a file holds beside the one that is shown and its alpha channel: thumbnails, depth and gain maps."""
    items: dict[int, bytes] = {}
    primary = alpha = 0
    parts: set[int] = set()
    depths: list[int] = []
    for kind, start, end in _boxes(data):
        body = data[start : min(end, start + _LONGEST)]
        if kind == b"pitm":
            primary = int.from_bytes(body[4:6] if body[0] == 0 else body[4:8], "big")
        elif kind == b"infe" and body[0] >= 2:
            wide = 2 if body[0] == 2 else 4
            items[int.from_bytes(body[4 : 4 + wide], "big")] = body[6 + wide : 10 + wide]
        elif kind == b"dimg":
            parts |= set(_references(body)[1])
        elif kind == b"auxC":
            alpha |= b":alpha" in body or body[4:].startswith(b"urn:mpeg:hevc:2015:auxid:1\0")
        elif kind == b"auxl":
            depths.append(_references(body)[0])
    known = {primary} | parts | (set(depths[:1]) if alpha and len(depths) == 1 else set())
    return sum(kind in _PICTURES and number not in known for number, kind in items.items())


def _references(body: bytes) -> tuple[int, tuple[int, ...]]:
    (count,) = struct.unpack_from(">H", body, 2)
    wide = len(body) != 4 + 2 * count
    if wide:
        (count,) = struct.unpack_from(">H", body, 4)
        return struct.unpack_from(">I", body)[0], struct.unpack_from(f">{count}I", body, 6)
    return struct.unpack_from(">H", body)[0], struct.unpack_from(f">{count}H", body, 4)


def save(image: Image.Image, image_format: str, options: dict[str, Any], original_size: int, *, anew: bool) -> bytes:
    """The file does not say at which quality it was made: take the highest that does not outgrow it by more than a tenth."""
    if anew and image_format == "HEIF":
        return save_at(image, image_format, options, _LOSSLESS)
    encoded = b""
    for quality in QUALITIES:
        encoded = save_at(image, image_format, options, {"quality": quality})
        if len(encoded) <= GROWTH * original_size:
            break
    return encoded


def save_at(image: Image.Image, image_format: str, options: dict[str, Any], quality: dict[str, Any]) -> bytes:
    """A picture encoded as HEIF or AVIF with settings that give the same bytes each time."""
    out = io.BytesIO()
    image.save(out, format=image_format, **options, **_FIXED[image_format], **quality)
    return out.getvalue()


def avif_parts(data: bytes) -> tuple[list[Any], list[tuple[int, int]]]:
    """Everything in an AVIF file of ours but its coded frames, their lengths set to nothing; and where the frames lie.

    Raises:
        ValueError: the file holds what no file of ours does: data out of order, OBUs but a header and a frame for each item.
    """
    around: list[Any] = []
    extents: list[tuple[int, int]] = []
    frames, place = [], 0
    for kind, start, end in _boxes(data):
        if kind == b"iloc":
            extents, blank = _extents(data[start:end])
            around.append((kind, blank))
        elif kind == b"mdat":
            place = start
            around.append((kind, len(data) - end))
        elif kind not in _CONTAINERS:
            around.append((kind, data[start:end]))
    for start, length in sorted(extents):
        if start != place:
            raise ValueError("its data has gaps")
        headers, frame = _one_frame(data, start, start + length)
        around += headers
        frames.append(frame)
        place = start + length
    if place != len(data):
        raise ValueError("something follows its data")
    return around, frames


def _extents(body: bytes) -> tuple[list[tuple[int, int]], bytes]:
    """Items' places in the file, and the iloc box without them; as libavif writes it: version 0, 4-byte numbers, 1 extent."""
    if body[:6] != b"\0\0\0\0\x44\0":
        raise ValueError("its table of items is none of ours")
    (count,) = struct.unpack_from(">H", body, 6)
    if len(body) != 8 + 14 * count:
        raise ValueError("its table of items is none of ours")
    blank = bytearray(body)
    extents = []
    for number in range(count):
        extents.append(struct.unpack_from(">II", body, 14 + 14 * number))
        blank[14 + 14 * number : 22 + 14 * number] = bytes(8)
    return extents, bytes(blank)


def _one_frame(data: bytes, place: int, end: int) -> tuple[list[bytes], tuple[int, int]]:
    """The headers of an item and where its one frame lies."""
    headers: list[bytes] = []
    while place < end:
        start, head = place, data[place]
        size = shift = 0
        while True:
            place += 1
            size |= (data[place] & 127) << shift
            shift += 7
            if not data[place] & 128:
                break
        place += 1
        kind = head >> 3 & 15
        if head & 0x87 != 2 or head & 4 or place + size > end or shift > 28:
            raise ValueError("its data is none of ours")
        if kind == _FRAME:
            if place + size != end or [one[0] >> 3 & 15 for one in headers] not in ([_DELIMITER, _SEQUENCE], [_SEQUENCE]):
                raise ValueError("it has more than one frame")
            return headers, (place, end)
        headers.append(data[start : place + size])
        place += size
    raise ValueError("it has no frame")


def _boxes(data: bytes, place: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start and end of the body) of a file's boxes, those inside others after them. Raises: struct.error."""
    end = len(data) if end is None else end
    while place < end:
        size, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        size = size or end - place
        if size < start - place or place + size > end:
            raise struct.error("a box is longer than the file")
        yield kind, start, place + size
        if kind in _CONTAINERS:
            wide = 2 if kind == b"iinf" and data[start] else 0  # its count of items
            yield from _boxes(data, start + _CONTAINERS[kind] + wide, place + size)
        place += size

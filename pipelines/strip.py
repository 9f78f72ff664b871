"""Taking metadata out of a picture's file without touching its pixels: the compressed picture data is copied bit for bit.

What stays is what a viewer needs to show the same: colour profile, resolution, orientation (an EXIF block with that tag alone).
EXIF, XMP, IPTC, Photoshop resources, comments, text, thumbnails, further pictures and whatever follows the picture's end go.

    JPEG  segments: JFIF without its thumbnail, ICC profile, Adobe's colour transform, tables, frames and scans
    PNG   chunks: the critical ones and those in _PNG_KEPT, animation included
    WebP  chunks: picture, alpha, animation, ICC profile
"""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

from pipelines.errors import BadImageError
from pipelines.images import READ_FORMATS, sniff_format

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(b"tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs sPLT acTL fcTL fdAT".split())
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04  # flags in VP8X
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length


def strip_metadata(data: bytes) -> bytes | None:
    """The file without its metadata; equal to `data` if it has none. None: only writing it anew would take it out.

    Raises:
        BadImageError: the file's structure is broken.
    """
    kind = sniff_format(data)
    strip = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}.get(kind or "")
    if strip is None:
        from pipelines.gate.embedded import metadata_findings

        return None if metadata_findings(data, changed=True) else data
    try:
        stripped = b"".join(strip(data, _orientation(data)))
    except (struct.error, IndexError):
        raise BadImageError("its file ends in the middle") from None
    return stripped


def _orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=READ_FORMATS) as image:
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # whatever Pillow raises on hostile bytes
        raise BadImageError(f"its metadata cannot be read ({type(error).__name__})") from None
    return value if value in range(2, 9) else 1


def _exif(orientation: int) -> bytes:
    """TIFF structure with one directory of one tag."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ExifTags.Base.Orientation, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes, orientation: int) -> Iterator[bytes]:
    yield data[:2]
    place, orientation_to_write = 2, orientation > 1
    while True:
        if data[place] != 0xFF:
            raise BadImageError("its file has something else where a JPEG marker should be")
        while data[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = data[place + 1]
        if orientation_to_write and marker != 0xE0:
            block = b"Exif\0\0" + _exif(orientation)
            yield b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
            orientation_to_write = False
        if marker == 0xD9:
            yield b"\xff\xd9"
            return
        if marker in _STANDALONE:
            yield data[place : place + 2]
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        if end > len(data):
            raise BadImageError("its file ends in the middle")
        yield _segment(marker, data[place + 4 : end], data[place:end])
        place = end
        if marker == 0xDA:
            while True:  # the scan's data, up to a marker that is none of its own
                place = data.find(b"\xff", place)
                if place < 0 or place + 1 >= len(data):
                    raise BadImageError("its file ends in the middle")
                if data[place + 1] not in (0, 0xFF, *range(0xD0, 0xD8)):
                    break
                place += 1 if data[place + 1] == 0xFF else 2
            yield data[end:place]


def _segment(marker: int, body: bytes, whole: bytes) -> bytes:
    """What stays of a segment."""
    if marker == 0xE0:
        if not body.startswith(b"JFIF\0") or len(body) < 14:
            return b""
        return b"\xff\xe0\x00\x10" + body[:12] + b"\0\0" if len(body) > 14 or any(body[12:14]) else whole
    if marker == 0xE2:
        return whole if body.startswith(b"ICC_PROFILE\0") else b""
    if marker == 0xEE:
        return whole if body.startswith(b"Adobe") else b""
    return b"" if 0xE0 <= marker <= 0xEF or marker == 0xFE else whole


def _png(data: bytes, orientation: int) -> Iterator[bytes]:
    yield _PNG_START
    place, orientation_to_write = len(_PNG_START), orientation > 1
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise BadImageError("its file ends in the middle")
        if kind == b"IDAT" and orientation_to_write:
            body = b"eXIf" + _exif(orientation)
            yield struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
            orientation_to_write = False
        if kind[:1].isupper() or kind in _PNG_KEPT:
            yield data[place:end]
        if kind == b"IEND":
            return
        place = end


def _webp(data: bytes, orientation: int) -> Iterator[bytes]:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise BadImageError("its file ends in the middle")
    place, chunks = 12, []
    while place < 8 + size:
        kind, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        if place + 8 + length > len(data):
            raise BadImageError("its file ends in the middle")
        chunk = data[place:end].ljust(end - place, b"\0")
        if kind == b"VP8X":
            flags = chunk[8] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if orientation > 1 else 0)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if kind in _WEBP_KEPT:
            chunks.append(chunk)
        place = end
    if orientation > 1:
        body = _exif(orientation)
        chunks.append(struct.pack("<4sI", b"EXIF", len(body)) + body)
    yield b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP"
    yield from chunks

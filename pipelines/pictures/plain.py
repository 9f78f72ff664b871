"""Proof that a picture's file holds a picture and nothing else.

    lossless    (PNG, GIF, BMP, TIFF, lossless WebP, our HEIC) the file equals its own pixels written anew, byte for byte
    JPEG        SOI, JFIF without thumbnail, our EXIF of an orientation or a camera, a rebuilt profile, Adobe's transform,
                tables, one baseline frame and one scan, EOI; every table once, and the decoder needs the scan to its last bytes
    WebP        VP8X, a rebuilt profile, ALPH, one frame, our EXIF; the decoder needs each of its parts to its last bytes
    AVIF        the boxes and headers of its own pixels written anew; what it shows depends on every part of its one frame

A picture that `pipelines.pictures.codec.encode(..., anew=True)` wrote passes; of any other the reason is given.
"""

import io
import struct
from collections.abc import Collection, Iterator

import numpy as np
from PIL import Image

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.codec import READ_FORMATS, DecodedPicture, sniff_format, written_anew
from diffpriv.pipelines.pictures.heif import avif_parts
from diffpriv.pipelines.pictures.mark import JPEG_XMP, MARKS, is_mark
from diffpriv.pipelines.pictures.profiles import rebuilt_profile
from diffpriv.pipelines.pictures.saving import exif_of, is_lossless_webp

STRETCHES, MIN_STRETCH = 16, 256  # of an AVIF's frame, each of which must be there for a pixel; bytes of one
AVIF_HEADER = 32
TAIL = 16  # bytes at a part's end that may hold nothing, for a decoder that reads ahead
_EXIFS = frozenset(exif_of(orientation) for orientation in range(2, 9))
_JFIF = 14
_ADOBE = 12
_MOST_TABLES = 4


class _Odd(Exception):
    """What is in the file besides its picture."""


def oddity(data: bytes, picture: DecodedPicture) -> str:
    """Why the file is not proved to hold nothing but its picture; "" if it is.

    Args:
        picture: `data`, decoded.
    """
    kind = sniff_format(data[:16])
    try:
        if picture.frames > 1:
            raise _Odd("it has more than one frame")
        if kind == "JPEG":
            _jpeg(data, _EXIFS | {picture.camera_exif})
        elif kind == "WEBP" and not is_lossless_webp(data):
            _webp(data, picture)
        elif picture.format == "AVIF":
            _avif(data, picture)
        elif not any(made == data for made in _ours(data, picture)):
            raise _Odd("it is not what its pixels are when they are written anew")
    except _Odd as found:
        return str(found)
    except (struct.error, IndexError, ValueError, BadImageError):
        return "its file's structure is broken"
    return ""


def _ours(data: bytes, picture: DecodedPicture) -> Iterator[bytes]:
    """The files that we would write of these pixels: with and without the camera and the mark that it names."""
    for camera in (False, True) if picture.camera_exif else (False,):
        for mark in (b"", *(one for one in MARKS if one in data)):
            yield written_anew(picture, camera=camera, mark=mark)


def _jpeg(data: bytes, exifs: Collection[bytes]) -> None:
    seen: list[int] = []
    for marker, body in _jpeg_segments(data):
        _jpeg_segment(marker, body, seen, exifs)
        seen.append(marker)
        if marker == 0xDA:
            break
    if seen.count(0xDA) != 1 or seen.count(0xC0) + seen.count(0xC1) != 1:
        raise _Odd("it is no JPEG of one baseline scan")
    if not data.endswith(b"\xff\xd9"):
        raise _Odd("something follows its end")
    scan = data[data.rindex(b"\xff\xda") :] if data.count(b"\xff\xda") == 1 else b""
    place = scan.find(b"\xff", 2)
    while place >= 0:
        if scan[place + 1 : place + 2] != b"\0" and place != len(scan) - 2:
            raise _Odd("its scan holds a marker")
        place = scan.find(b"\xff", place + 1)
    if not scan or _decodes(data[: -2 - TAIL]):
        raise _Odd("something lies behind the last of its pixels")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 2
    while True:
        if data[place] != 0xFF or data[place + 1] in (0, 0xFF):
            raise _Odd("something stands where a marker should be")
        (length,) = struct.unpack_from(">H", data, place + 2)
        if length < 2 or place + 2 + length > len(data):
            raise _Odd("a segment is longer than the file")
        yield data[place + 1], data[place + 4 : place + 2 + length]
        place += 2 + length


def _jpeg_segment(marker: int, body: bytes, seen: list[int], exifs: Collection[bytes]) -> None:
    if marker == 0xE0:
        known = len(body) == _JFIF and body.startswith(b"JFIF\0") and body[12:14] == b"\0\0" and marker not in seen
    elif marker == 0xE1:
        marked = body.startswith(JPEG_XMP) and is_mark(body.removeprefix(JPEG_XMP))
        known = seen.count(marker) < 2 if marked else body in exifs and marker not in seen
    elif marker == 0xE2:
        known = body.startswith(b"ICC_PROFILE\0\1\1") and rebuilt_profile(body[14:]) == body[14:] and marker not in seen
    elif marker == 0xEE:
        known = len(body) == _ADOBE and body.startswith(b"Adobe\0") and body[6:11] == b"d\0\0\0\0" and marker not in seen
    elif marker == 0xDB:
        known = len(body) in (65, 129) and seen.count(marker) < _MOST_TABLES
    elif marker == 0xC4:
        known = (
            len(body) == 17 + sum(body[1:17]) and len(set(body[17:])) == len(body) - 17 and seen.count(marker) < _MOST_TABLES
        )
    elif marker in (0xC0, 0xC1):
        known = len(body) == 6 + 3 * body[5]
    else:
        known = marker == 0xDA and len(body) == 4 + 2 * body[0]
    if not known:
        raise _Odd(f"it has a segment {marker:#x} that is not one of ours")


def _webp(data: bytes, picture: DecodedPicture) -> None:
    if struct.unpack_from("<I", data, 4)[0] + 8 != len(data):
        raise _Odd("something follows its end")
    chunks = list(_webp_chunks(data))
    kinds = [kind for kind, _ in chunks]
    if kinds not in (["VP8 "], *_WEBP_LAYOUTS):
        raise _Odd(f"it has the chunks {', '.join(kinds)}")
    for number, (kind, body) in enumerate(chunks):
        if kind == "ICCP" and rebuilt_profile(body) != body:
            raise _Odd("its colour profile is not one of ours")
        exifs = {exif.removeprefix(b"Exif\0\0") for exif in (*_EXIFS, picture.camera_exif)}
        if kind == "EXIF" and body.removeprefix(b"Exif\0\0") not in exifs:
            raise _Odd("its EXIF is not one of ours")
        if kind == "XMP " and not is_mark(body):
            raise _Odd("its XMP is not one of ours")
        if kind == "VP8X" and len(body) != 10:
            raise _Odd("its header is longer than a header")
        if kind == "ALPH" and len(body) > TAIL and _same(chunks, number, body[:-TAIL], picture):
            raise _Odd("something lies behind its alpha channel")
        if kind == "VP8 ":
            first = 10 + (int.from_bytes(body[:3], "little") >> 5)
            cut = body[: first - TAIL] + bytes(TAIL) + body[first:]
            if _same(chunks, number, body[:-TAIL], picture) or (first > 10 + TAIL and _same(chunks, number, cut, picture)):
                raise _Odd("something lies behind the last of its pixels")


_WEBP_LAYOUTS = [
    ["VP8X", *icc, *alpha, "VP8 ", *exif, *xmp]
    for icc in ([], ["ICCP"])
    for alpha in ([], ["ALPH"])
    for exif in ([], ["EXIF"])
    for xmp in ([], ["XMP "])
]


def _webp_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = 12
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        body = data[place + 8 : place + 8 + length]
        if len(body) != length or (length % 2 and data[place + 8 + length] != 0):
            raise _Odd("a chunk is longer than the file")
        yield kind.decode("latin-1"), body
        place += 8 + length + length % 2


def _avif(data: bytes, picture: DecodedPicture) -> None:
    around, frames = avif_parts(data)
    if around != avif_parts(written_anew(picture))[0]:
        raise _Odd("its boxes and headers are not what its pixels are when they are written anew")
    original = np.asarray(picture.stored)
    for start, end in frames:
        step = max((end - start) // STRETCHES, MIN_STRETCH)
        stretches = [(place, min(place + step, end)) for place in range(start + AVIF_HEADER, end, step)]
        for first, last in [*stretches, (end - TAIL, end)]:
            if end - start < MIN_STRETCH + AVIF_HEADER:
                continue  # too little to hide a picture in
            pixels = _pixels(data[:first] + bytes(last - first) + data[last:])
            if pixels is not None and pixels.shape == original.shape and np.array_equal(pixels, original):
                raise _Odd("a part of its data is there for no pixel")


def _same(chunks: list[tuple[str, bytes]], number: int, body: bytes, picture: DecodedPicture) -> bool:
    """Whether the file still shows the same with another body in one of its chunks."""
    bodies = [body if place == number else one for place, (_, one) in enumerate(chunks)]
    packed = b"".join(
        kind.encode("latin-1") + struct.pack("<I", len(one)) + one + bytes(len(one) % 2)
        for (kind, _), one in zip(chunks, bodies, strict=True)
    )
    pixels = _pixels(b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed)
    original = np.asarray(picture.stored)
    return pixels is not None and pixels.shape == original.shape and np.array_equal(pixels, original)


def _decodes(data: bytes) -> bool:
    return _pixels(data) is not None


def _pixels(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=READ_FORMATS) as image:
            image.load()
            return np.asarray(image)
    except Exception:  # whatever Pillow raises: it cannot do without what was cut off
        return None

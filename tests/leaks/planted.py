"""A generator of planted faces: place x encoding x container. The face is a photo that ships in scikit-image (NASA).

encodings()    a face as the bytes of a field: (extension, bytes)
pictures()     a picture without a face whose file holds one beside its pixels
containers     tar, tar.gz, Parquet, folder; and faces in what surrounds the samples of one
"""

import base64
import bz2
import functools
import gzip
import io
import json
import lzma
import pickle
import quopri
import struct
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, PngImagePlugin

from tests.pipelines.datasets import astronaut, coffee

SIDE = 96


@functools.cache
def face(side: int = SIDE) -> np.ndarray:
    """(side, side, 3): head and shoulders."""
    photo = Image.fromarray(astronaut(512)).crop((130, 10, 330, 210))
    return np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS))


@functools.cache
def nobody(side: int = SIDE) -> np.ndarray:
    return np.asarray(Image.fromarray(coffee()).resize((side, side)))


def saved(pixels: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, format=format, **options)
    return out.getvalue()


@functools.cache
def jpeg() -> bytes:
    return saved(face(), "JPEG", quality=80)


def _npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def _npy_with(more: bytes) -> bytes:
    """An array whose header goes on behind its dictionary."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }" + more + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + np.arange(4, dtype="<i8").tobytes()


def _names(data: bytes) -> list[str]:
    encoded = base64.urlsafe_b64encode(data).decode()
    return [encoded[start : start + 60] for start in range(0, len(encoded), 60)]


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _zip(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
    return out.getvalue()


def _tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _arrow(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"image": pa.array([data], pa.binary())})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _in_lines(text: str, width: int) -> str:
    return "\n".join(text[start : start + width] for start in range(0, len(text), width))


def _spaced(text: str, width: int) -> str:
    return " ".join(text[start : start + width] for start in range(0, len(text), width))


def _words(data: bytes) -> str:
    """Each byte as a pair of made-up syllables: an alphabet of words."""
    syllables = [one + two for one in "bdfgklmnprstvwzj" for two in "aeio"][:64]
    bits = int.from_bytes(data, "big")
    letters = [syllables[bits >> shift & 63] for shift in range(0, len(data) * 8, 6)]
    return _spaced("".join(letters), 8)


def _ideographs(data: bytes) -> str:
    """Two bytes to an ideograph: the alphabet of base32768 and its kind."""
    pairs = struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2])
    return "".join(chr(0x4E00 + pair % 20000) for pair in pairs)


def _pixels_as_text(pixels: np.ndarray, columns: int) -> str:
    return _in_rows([str(value) for value in pixels.reshape(-1).tolist()], columns)


def _in_rows(values: list[str], columns: int) -> str:
    return "\n".join(",".join(values[start : start + columns]) for start in range(0, len(values), columns))


def files() -> Iterator[tuple[str, str, bytes]]:
    """(name, extension, bytes) of faces in files that are not text."""
    rgb, grey = face(), face()[..., 1]
    for format, extension in (
        *(("PCX", "pcx"), ("PPM", "ppm"), ("TGA", "tga"), ("JPEG2000", "jp2"), ("AVIF", "avif"), ("ICO", "ico")),
        *(("SGI", "sgi"), ("IM", "im"), ("QOI", "qoi"), ("DDS", "dds"), ("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")),
        *(("GIF", "gif"), ("TIFF", "tiff"), ("BMP", "bmp"), ("PDF", "pdf"), ("SPIDER", "spider")),
    ):
        try:
            data = saved(Image.fromarray(grey) if format == "SPIDER" else Image.fromarray(rgb), format)
        except (OSError, KeyError, ValueError):
            continue  # this Pillow cannot write it
        yield f"{format} file", extension, data
    bitmap = bytearray(saved(rgb, "BMP"))
    bitmap[6:10] = b"\1\2\3\4"
    yield "BMP with its reserved bytes set", "dat", bytes(bitmap)
    yield "PPM under a dotted name", "v1.meta", saved(rgb, "PPM")
    yield "npy", "npy", _npy(rgb)
    yield "npy of floats, channels first", "npy", _npy(np.moveaxis(rgb, 2, 0).astype(np.float32) / 255)
    yield "npy of a batch", "npy", _npy(np.stack([nobody()] * 3 + [rgb]))
    yield "npy of float64, standardised", "npy", _npy((rgb - rgb.mean()) / rgb.std())
    yield "npy laid flat", "npy", _npy(rgb.reshape(-1))
    yield "npy laid flat, floats", "npy", _npy(grey.reshape(-1).astype(np.float16))
    yield "npy of a JPEG's bytes", "npy", _npy(np.frombuffer(jpeg(), np.uint8))
    yield "npy of a JPEG's bytes, signed", "npy", _npy(np.frombuffer(jpeg(), np.int8).astype(np.int32))
    yield "npy in Fortran's order", "npy", _npy(np.asfortranarray(grey))
    yield "npy of booleans", "npy", _npy(np.asarray(Image.fromarray(face(192)).convert("L")) > 110)
    yield "npy and a JPEG behind it", "npy", _npy(np.arange(4)) + jpeg()
    yield "npz", "npz", _npz(label=np.array(3), pixels=rgb)
    yield "npz under another name", "labels", _npz(a=grey)
    yield "comment of an npy's header", "npy", _npy_with(b"#" + base64.b64encode(jpeg()))
    yield "names of an npz's arrays", "npz", _npz(**{name: np.arange(2) for name in _names(jpeg())})
    yield "npy of bits", "npy", _npy(np.unpackbits(np.frombuffer(jpeg(), np.uint8)))
    yield "npy of 64-bit numbers", "npy", _npy(np.frombuffer(jpeg() + bytes(-len(jpeg()) % 8), np.int64))
    yield "pickle", "pkl", pickle.dumps(rgb)
    yield "zip", "zip", _zip("a.jpg", jpeg())
    yield "tar", "tar.bak", _tar("a.jpg", jpeg())
    yield "gzip", "txt.gz", gzip.compress(jpeg())
    yield "bzip2", "bz2", bz2.compress(jpeg())
    yield "xz", "xz", lzma.compress(jpeg())
    yield "zlib", "z", zlib.compress(rgb.tobytes())
    yield "Arrow file", "arrow", _arrow(jpeg())
    yield "raw pixels", "raw", rgb.tobytes()
    yield "video as m4v", "m4v", b"\0\0\0\x20ftypM4V \0\0\0\0" + jpeg()
    yield "video without extension", "", b"\x1aE\xdf\xa3" + jpeg()
    yield "bytes turned around", "bin", bytes(255 - one for one in jpeg())
    yield "text in UTF-16", "txt", base64.b64encode(jpeg()).decode().encode("utf-16")
    yield "a JPEG behind a text", "txt", b"a caption\n" * 20 + jpeg()


def texts() -> Iterator[tuple[str, str, str]]:
    """(name, extension, text) of faces in text."""
    data = jpeg()
    encoded = base64.b64encode(data).decode()
    grey = face(48)[..., 1]
    yield "base64", "txt", encoded
    yield "base64 in lines", "txt", _in_lines(encoded, 76)
    yield "base64 in groups of eight", "txt", _spaced(encoded, 8)
    yield "base64 in groups of four", "txt", _spaced(encoded, 4)
    yield "base64 behind a caption", "txt", "A woman in an orange suit. " + encoded
    yield "base64url in JSON", "json", json.dumps({"id": base64.urlsafe_b64encode(data).decode()})
    yield "base64 in JSON, by chunks", "json", json.dumps({"notes": [encoded[s : s + 50] for s in range(0, len(encoded), 50)]})
    yield "base64 as JSON's keys", "json", json.dumps({encoded[s : s + 60]: 1 for s in range(0, len(encoded), 60)})
    yield "JSON with a key twice", "json", '{"label": "' + encoded[:4000] + '", "label": "cat"}'
    yield "base64 in JSON Lines", "jsonl", "\n".join(json.dumps({"t": encoded[s : s + 60]}) for s in range(0, len(encoded), 60))
    yield "base64 in YAML", "yaml", "image: |\n  " + _in_lines(encoded, 70).replace("\n", "\n  ")
    yield "data URI in SVG", "svg", f'<svg><image href="data:image/jpeg;base64,{encoded}"/></svg>'
    yield "data URI in HTML", "html", f'<img src="data:image/jpeg;base64,{encoded}">'
    yield "data URI in Markdown", "md", f"# A note\n\n![a](data:image/jpeg;base64,{encoded})"
    yield "base32", "txt", base64.b32encode(data).decode()
    yield "base32, lower case, in groups", "txt", _spaced(base64.b32encode(data).decode().lower().strip("="), 6)
    yield "base85", "txt", base64.b85encode(data).decode()
    yield "ascii85", "txt", base64.a85encode(data, wrapcol=72).decode()
    yield "hexadecimal", "txt", data.hex()
    yield "hexadecimal in pairs", "txt", _spaced(data.hex(), 2)
    yield "hexadecimal in digests", "txt", _in_lines(data.hex(), 64)
    yield "hexadecimal in upper case and colons", "txt", data.hex(":").upper()
    yield "C array", "h", "unsigned char a[] = {" + ", ".join(f"0x{one:02x}" for one in data) + "};"
    yield "decimal bytes", "txt", " ".join(str(one) for one in data)
    yield "octal bytes", "txt", " ".join(f"{one:03o}" for one in data)
    yield "percent encoding", "txt", urllib.parse.quote(data, safe="")
    yield "quoted-printable", "txt", quopri.encodestring(data, quotetabs=True).decode("ascii")
    yield "bits", "txt", _in_lines("".join(f"{one:08b}" for one in data), 64)
    yield "syllables", "txt", _words(data)
    yield "ideographs", "txt", _ideographs(data)
    yield "braille", "txt", "".join(chr(0x2800 + one) for one in data)
    yield "variation selectors", "txt", "".join(f"cup{chr(0xFE00 + b) if b < 16 else chr(0xE00F0 + b)} " for b in data)
    yield "accents", "txt", "".join(f"cu{chr(0x300 + (one >> 4))}p{chr(0x300 + (one & 15))} " for one in data)
    yield "invisible blanks", "txt", "".join(f"cup{_invisible(one)} " for one in data)
    yield "booleans of JSON Lines", "jsonl", _lines([bit == "1" for one in data for bit in f"{one:08b}"])
    yield "half bytes in JSON Lines", "jsonl", _lines([half for one in data for half in (one >> 4, one & 15)])
    yield (
        "64-bit numbers in JSON Lines",
        "jsonl",
        _lines([int.from_bytes(data[s : s + 8], "big") for s in range(0, len(data), 8)]),
    )
    yield "pixels as JSON rows", "json", json.dumps({"pixels": grey.tolist()})
    yield "pixels as JSON numbers", "json", json.dumps({"values": grey.reshape(-1).tolist()})
    yield "pixels as JSON floats", "json", json.dumps({"x": (face(48) / 255).round(3).tolist()})
    yield "pixels as JSON keys", "json", json.dumps({f"p{n}": int(v) for n, v in enumerate(grey.reshape(-1))})
    yield "pixels as JSON Lines", "jsonl", "\n".join(json.dumps({"v": int(v)}) for v in grey.reshape(-1))
    yield "pixels in a string of JSON", "json", json.dumps({"pixels": " ".join(map(str, grey.reshape(-1)))})
    yield "pixels as CSV rows", "csv", _pixels_as_text(grey, 48)
    yield "pixels as a column", "csv", "value\n" + _pixels_as_text(grey, 1)
    yield "pixels as one of three columns", "csv", _in_rows([f"{n},{v},x" for n, v in enumerate(grey.reshape(-1))], 1)
    yield "pixels in a cell", "csv", "emotion,pixels,usage\n3," + " ".join(map(str, grey.reshape(-1))) + ",Training"
    yield "plain PGM", "pgm.txt", f"P2\n48 48\n255\n{_pixels_as_text(grey, 16).replace(',', ' ')}"
    yield "plain PPM", "ppm.txt", f"P3\n48 48\n255\n{_pixels_as_text(face(48), 12).replace(',', ' ')}"
    yield "XPM", "xpm", "static char *x[] = {" + ",".join(f'"{_row(row)}"' for row in face()[..., 0]) + "};"
    yield "PostScript", "ps", "%!PS\n{<" + _in_lines(face(64)[..., 1].tobytes().hex(), 60) + ">} image"
    yield "blanks", "txt", "".join("\t" if one == "1" else " " for byte in data for one in f"{byte:08b}")


def _invisible(byte: int) -> str:
    return "".join("\u200b" if bit == "1" else "\u200c" for bit in f"{byte:08b}")


def _lines(values: list[Any]) -> str:
    """JSON Lines of a few numbers each."""
    return "\n".join(json.dumps({"v": values[start : start + 8]}) for start in range(0, len(values), 8))


def _row(values: np.ndarray) -> str:
    return "".join(chr(40 + int(value) // 4) for value in values).replace('"', "'").replace("\\", "/")


def pictures() -> Iterator[tuple[str, str, bytes]]:
    """(name, extension, bytes) of pictures without a face whose files hold one beside their pixels."""
    plain, hidden, png = saved(nobody(), "JPEG"), jpeg(), saved(nobody(), "PNG")
    yield "MP4 after a JPEG's end", "jpg", plain + b"\0\0\0\x20ftypmp42" + bytes(16) + hidden[2:]
    yield "JPEG after a JPEG's end", "jpg", plain + hidden
    yield "WebP after a JPEG's end", "jpg", plain + saved(face(), "WEBP")
    yield "comment of a JPEG", "jpg", saved(nobody(), "JPEG", comment=hidden[:60000])
    yield "APP7 of a JPEG", "jpg", _with_segment(plain, 0xE7, hidden)
    yield "uncompressed JFIF thumbnail", "jpg", _jfif_thumbnail(plain)
    yield "uncompressed EXIF thumbnail", "jpg", _with_segment(plain, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0" + face(64).tobytes())
    yield "EXIF thumbnail", "jpg", _with_segment(plain, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0" + hidden)
    yield "XMP in base64", "jpg", saved(nobody(), "JPEG", xmp=b"<x>" + base64.b64encode(hidden) + b"</x>")
    yield "behind the scan of a JPEG", "jpg", plain[:-2] + hidden.replace(b"\xff", b"\xff\0") + b"\xff\xd9"
    yield "between the scans of a progressive JPEG", "jpg", _between_scans(saved(nobody(), "JPEG", progressive=True))
    yield "ICC profile of a JPEG", "jpg", saved(nobody(), "JPEG", icc_profile=hidden)
    yield "second picture of an MPO", "jpg", saved(nobody(), "MPO", save_all=True, append_images=[Image.fromarray(face())])
    yield "private PNG chunk", "png", _with_chunk(png, b"prVt", hidden)
    yield "text chunk of a PNG", "png", saved(nobody(), "PNG", pnginfo=_text(base64.b64encode(hidden).decode()))
    yield "after a PNG's end", "png", png + hidden
    yield "behind a PNG's pixels", "png", _behind_pixels(png, hidden)
    yield "ICC profile of a PNG", "png", saved(nobody(), "PNG", icc_profile=hidden)
    yield "alpha channel of a PNG", "png", _alpha(nobody(), face()[..., 1], "PNG")
    yield "alpha channel of a WebP", "webp", _alpha(nobody(), face()[..., 1], "WEBP", lossless=True)
    yield "colour under no alpha", "png", _alpha(face(), np.zeros((SIDE, SIDE), np.uint8), "PNG")
    yield "low bytes of 16 bits", "png", saved(Image.fromarray(nobody()[..., 1].astype(np.uint16) << 8 | face()[..., 1]), "PNG")
    hot = face()[..., 1].astype(np.uint16)
    hot[0, 0] = 65535
    yield "16 bits with a hot pixel", "png", saved(Image.fromarray(hot), "PNG")
    yield "second frame of a GIF", "gif", saved(nobody(), "GIF", save_all=True, append_images=[Image.fromarray(face())])
    yield "comment of a GIF", "gif", saved(Image.fromarray(nobody()).convert("P"), "GIF", comment=hidden)
    yield "second frame of a PNG", "png", saved(nobody(), "PNG", save_all=True, append_images=[Image.fromarray(face())])
    yield "second page of a TIFF", "tiff", saved(nobody(), "TIFF", save_all=True, append_images=[Image.fromarray(face())])
    yield "private tag of a TIFF", "tiff", saved(nobody(), "TIFF", tiffinfo={65000: hidden})
    yield "between a TIFF's parts", "tiff", saved(nobody(), "TIFF") + face().tobytes()
    yield "chunk of a WebP", "webp", _with_riff(saved(nobody(), "WEBP"), b"prvt", hidden)
    yield "EXIF of a WebP", "webp", saved(nobody(), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + hidden)
    yield "after a WebP's end", "webp", saved(nobody(), "WEBP") + hidden
    yield "behind a BMP's pixels", "bmp", saved(nobody(), "BMP") + face().tobytes()


def _with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


def _jfif_thumbnail(data: bytes) -> bytes:
    body = b"JFIF\0\1\2\0\0\1\0\1" + bytes((64, 64)) + face(64).tobytes()
    return data[:2] + b"\xff\xe0" + struct.pack(">H", len(body) + 2) + body + data[20:]


def _between_scans(data: bytes) -> bytes:
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    return data[:second] + jpeg()[2:].replace(b"\xff", b"\xff\0") + data[second:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    place = data.index(b"IDAT") - 4
    return data[:place] + _chunk(kind, body) + data[place:]


def _behind_pixels(data: bytes, more: bytes) -> bytes:
    start = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, start)
    return data[:start] + _chunk(b"IDAT", data[start + 8 : start + 8 + length] + more) + data[start + 12 + length :]


def _text(value: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", value)
    return info


def _alpha(pixels: np.ndarray, alpha: np.ndarray, format: str, **options: object) -> bytes:
    return saved(np.dstack([pixels, alpha]), format, **({"exact": True} if format == "WEBP" else {}), **options)


def _with_riff(data: bytes, kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:] + chunk

"""How a picture is written: the codec's settings that keep it what it was, and what may stand in its file around the pixels.

kept            orientation, resolution, colour profile; PNG's gAMA, cHRM, sRGB, cICP and sBIT; JPEG's tables and sampling
written anew    the same, but the colour profile is rebuilt (`pipelines.pictures.profiles`), and a JPEG is one baseline
                scan with its own Huffman tables, so that nothing in the file is there for anything but its pixels
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, JpegImagePlugin, PngImagePlugin

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.profiles import rebuilt_profile
from diffpriv.pipelines.quarantine import Code

ORIENTATION_TAG = 0x0112
WEBP_QUALITIES = (95, 90, 85, 80, 75)
WEBP_GROWTH = 1.1
PNG_COLOUR = {b"gAMA": (4,), b"cHRM": (32,), b"sRGB": (1,), b"cICP": (4,), b"sBIT": (1, 2, 3, 4)}  # chunk -> its lengths


def plain(options: dict[str, Any], image_format: str) -> dict[str, Any]:
    """The options for a file that is written anew."""
    made = dict(options)
    profile = made.pop("icc_profile", None)
    rebuilt = rebuilt_profile(profile) if profile else None
    if rebuilt:
        made["icc_profile"] = rebuilt
    if image_format == "JPEG":
        made.pop("progressive", None)
        made["optimize"] = True
    return made


def with_more(options: dict[str, Any], image_format: str, exif: bytes, mark: bytes) -> dict[str, Any]:
    """The options for a file that also carries a camera's EXIF block or a mark (`pipelines.pictures.mark`); b"" for none."""
    made = {**options, **({"exif": exif} if exif else {})}
    if mark and image_format in ("JPEG", "WEBP"):
        made["xmp"] = mark
    elif mark and image_format == "PNG":
        kept = PngImagePlugin.PngInfo()
        kept.chunks = [*options["pnginfo"].chunks]
        kept.add_itxt("XML:com.adobe.xmp", mark.decode())
        made["pnginfo"] = kept
    return made


def save(image: Image.Image, image_format: str, options: dict[str, Any]) -> bytes:
    """A picture encoded in memory."""
    out = io.BytesIO()
    image.save(out, format=image_format, **options)
    return out.getvalue()


def save_webp(image: Image.Image, options: dict[str, Any], original_size: int) -> bytes:
    """The file does not say at which quality it was made: take the highest that does not outgrow it by more than a tenth."""
    encoded = b""
    for quality in WEBP_QUALITIES:
        encoded = save(image, "WEBP", {**options, "quality": quality})
        if len(encoded) <= WEBP_GROWTH * original_size:
            break
    return encoded


def exif_of(orientation: int) -> bytes:
    """An EXIF block with that tag alone."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return exif.tobytes()


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of every chunk up to IEND. Raises: BadImageError where the structure is broken."""
    place = 8
    while True:
        try:
            length, kind = struct.unpack_from(">I4s", data, place)
        except struct.error:
            raise BadImageError("its file ends in the middle", code=Code.TRUNCATED) from None
        if place + 12 + length > len(data):
            raise BadImageError("its file ends in the middle", code=Code.TRUNCATED)
        yield kind, data[place + 8 : place + 8 + length]
        if kind == b"IEND":
            return
        place += 12 + length


def save_options(image: Image.Image, data: bytes, orientation: int) -> dict[str, Any]:
    """How to write the picture back; read from the opened file before its metadata is let go."""
    options: dict[str, Any] = {}
    profile = image.info.get("icc_profile")
    if profile:
        options["icc_profile"] = profile
    if orientation != 1 and image.format == "TIFF":
        options["tiffinfo"] = {ORIENTATION_TAG: orientation}
    elif orientation != 1:
        options["exif"] = exif_of(orientation)
    dpi = image.info.get("dpi")
    if dpi and image.format in ("JPEG", "MPO", "PNG", "TIFF", "BMP") and all(0 < float(value) < 65536 for value in dpi):
        options["dpi"] = tuple(float(value) for value in dpi)
    if image.format in ("JPEG", "MPO"):
        options |= _jpeg_options(image)
    elif image.format == "PNG":
        options |= {"compress_level": 6, "pnginfo": _png_colour(data)}
        if image.mode in ("L", "RGB") and "transparency" in image.info:
            options["transparency"] = image.info["transparency"]
    elif image.format == "WEBP":
        options |= {"lossless": is_lossless_webp(data), "method": 4}
        if options["lossless"]:
            options |= {"quality": 80, "exact": True}
    elif image.format == "TIFF":
        known = {"raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"}
        compression = image.info.get("compression")
        options["compression"] = compression if compression in known else "tiff_lzw"
    return options


def _png_colour(data: bytes) -> PngImagePlugin.PngInfo:
    kept = PngImagePlugin.PngInfo()
    seen = set()
    for kind, body in png_chunks(data):
        if len(body) in PNG_COLOUR.get(kind, ()) and kind not in seen:
            seen.add(kind)
            kept.add(kind, body)
    return kept


def is_lossless_webp(data: bytes) -> bool:
    """Walk the RIFF chunks (tag, little-endian size, payload padded to even) to the first frame of a still picture."""
    offset = 12
    while offset + 8 <= len(data):
        tag = data[offset : offset + 4]
        if tag in (b"VP8L", b"VP8 "):
            return tag == b"VP8L"
        offset += 8 + (int.from_bytes(data[offset + 4 : offset + 8], "little") + 1) // 2 * 2
    return False


def _jpeg_options(image: Image.Image) -> dict[str, Any]:
    layers = getattr(image, "layer", [])
    tables = getattr(image, "quantization", {})
    try:
        chosen = [list(tables[layer[3]]) for layer in layers]
    except (KeyError, IndexError, TypeError):
        raise BadImageError("the JPEG does not name its quantisation tables") from None
    # Pillow gives the last table to all components that follow, so repeats at the end go: (Y, C, C) is [Y, C].
    while len(chosen) > 1 and chosen[-1] == chosen[-2]:
        chosen.pop()
    options: dict[str, Any] = {"qtables": chosen}
    if len(layers) == 3:
        sampling = JpegImagePlugin.get_sampling(image)
        options["subsampling"] = sampling if sampling >= 0 else 0
    elif len(layers) == 4:
        options["subsampling"] = 0
    if image.info.get("progressive") or image.info.get("progression"):
        options["progressive"] = True
    return options

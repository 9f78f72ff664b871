"""Pictures in and out: encoded bytes -> upright RGB for the models -> bytes of the same codec and comparable quality.

What is kept in a changed picture: codec, size, pixel mode where the codec allows (grey, CMYK, alpha, 16 bits of grey), colour
profile, resolution, JPEG quantisation tables, chroma subsampling and progressive mode, the orientation tag. What is dropped:
every other EXIF tag, XMP, IPTC, comments, embedded thumbnails, and all frames after the first.

The stored pixel grid never turns: a picture with an EXIF orientation is shown upright to the models and turned back before
it is written, so that boxes and sizes in other fields of the sample stay right.

Rules where a codec cannot be followed: JPEG with chroma sampling that Pillow cannot write becomes 4:4:4; a palette picture
becomes RGB(A), and GIF gets a new palette; 16-bit colour PNG is read as 8 bits by Pillow and written so; lossy WebP is written
at the highest quality that does not outgrow the original by a tenth. AVIF, HEIC, JPEG 2000 and every other format are refused,
and so are float pixels.

Same bytes in and same pixels in, same bytes out, with one version of Pillow.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from pipelines.errors import BadImageError

READ_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
# Names that promise a picture. One that this tool cannot read is quarantined, never passed on as "some other field".
PICTURE_EXTENSIONS = frozenset(
    name
    for names in (
        "jpg jpeg jpe jfif png apng webp gif tif tiff bmp dib",
        "avif heic heif jp2 j2k jpx jxl ppm pgm pbm pnm tga psd ico",
    )
    for name in names.split()
)
ORIENTATION_TAG = 0x0112
_JPEG_START = b"\xff\xd8\xff"
WEBP_QUALITIES = (95, 90, 85, 80, 75)
WEBP_GROWTH = 1.1

# EXIF orientation -> (stored to upright, upright to stored); 1 and unknown values mean "as stored".
_TURNS: dict[int, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    2: (lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
    3: (lambda a: a[::-1, ::-1], lambda a: a[::-1, ::-1]),
    4: (lambda a: a[::-1], lambda a: a[::-1]),
    5: (lambda a: a.swapaxes(0, 1), lambda a: a.swapaxes(0, 1)),
    6: (lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 1)),
    7: (lambda a: np.rot90(a, 2).swapaxes(0, 1), lambda a: np.rot90(a, 2).swapaxes(0, 1)),
    8: (lambda a: np.rot90(a, 1), lambda a: np.rot90(a, -1)),
}


@dataclass(frozen=True)
class PictureLimits:
    """Bounds on what is decoded; a picture over one of them is quarantined.

    Attributes:
        max_pixels: width × height of one frame. The default is Pillow's own threshold for a decompression bomb.
        max_frames: frames of an animation or pages of a TIFF.
    """

    max_pixels: int = 89_478_485
    max_frames: int = 100


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """A picture opened for change.

    Attributes:
        pixels: first frame, upright, (height, width, 3) uint8 RGB, read-only.
        frames: how many frames the file has.
        orientation: EXIF's, by which the stored picture was turned; 1 for none.
    """

    pixels: np.ndarray = field(repr=False)
    frames: int
    _data: bytes = field(repr=False)
    _native: Image.Image = field(repr=False)  # first frame in its own mode, as stored, without metadata
    _format: str
    orientation: int
    _save: dict[str, Any] = field(repr=False)
    _hidden: tuple[bytes, ...] = field(repr=False)  # metadata blocks in which thumbnails lie


def sniff_format(head: bytes) -> str | None:
    """The picture format that a file's first 16 bytes announce, or None; "HEIF" and "OTHER" are known and refused later."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if head.startswith(b"BM") and len(head) >= 16 and head[6:10] == b"\0\0\0\0" and head[14:16] in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIF"
    if head.startswith(_OTHER_HEADS):
        return "OTHER"
    return None


# JPEG 2000 (file and codestream), JPEG XL, Photoshop.
_OTHER_HEADS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL \r\n\x87\n", b"8BPS")
_BMP_HEADERS = tuple(bytes((size, 0)) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def decode(data: bytes, limits: PictureLimits = PictureLimits()) -> DecodedPicture:
    """Open a picture; nothing is guessed and nothing half-read.

    Raises:
        BadImageError: not a picture of READ_FORMATS, truncated or damaged, over a limit, or of a pixel type that cannot be
            shown. The reason holds no bytes of the picture and is the same on every run.
    """
    with _refusing("the picture cannot be read"):
        image = _open(data, limits)
        frames = int(getattr(image, "n_frames", 1))
        if frames > limits.max_frames:
            raise BadImageError(f"the picture has {frames} frames; the limit is {limits.max_frames}")
        image.load()
        _check_size(image, limits)
        orientation = _orientation(image)
        save = _save_options(image, data)
        hidden = _metadata_blocks(image)
        native = _native(image)
        pixels = np.ascontiguousarray(_turn(_as_rgb(native), orientation))
        pixels.flags.writeable = False
        image_format = "JPEG" if image.format == "MPO" else str(image.format)
        return DecodedPicture(pixels, frames, data, native, image_format, orientation, save, hidden)


def count_pixels(data: bytes) -> int:
    """Width × height from the header, nothing decoded. Raises: BadImageError."""
    with _refusing("the picture cannot be read"):
        width, height = _open(data, PictureLimits()).size
        return width * height


def later_frames(picture: DecodedPicture) -> Iterator[np.ndarray]:
    """Frames after the first, each (height, width, 3) uint8 RGB, upright by the first frame's orientation.

    Raises:
        BadImageError: a frame is damaged. A frame nobody could look at must not be published.
    """
    with _refusing("a later frame of the picture cannot be read"):
        image = _open(picture._data, PictureLimits(max_pixels=1 << 62))
        for number in range(1, picture.frames):
            image.seek(number)
            yield np.ascontiguousarray(_turn(_as_rgb(_native(image)), picture.orientation))


def thumbnails(picture: DecodedPicture) -> Iterator[np.ndarray]:
    """JPEG thumbnails and previews inside the metadata, (height, width, 3) uint8 RGB: what a crop cut away may live on in them.

    What no decoder can open cannot be looked at by anyone and is passed over.
    """
    for block in picture._hidden:
        start = block.find(_JPEG_START)
        while start >= 0:
            with contextlib.suppress(BadImageError):
                yield decode(block[start:]).pixels
            start = block.find(_JPEG_START, start + 1)


def _metadata_blocks(image: Image.Image) -> tuple[bytes, ...]:
    photoshop = image.info.get("photoshop")
    blocks = [image.info.get("exif"), *(photoshop.values() if isinstance(photoshop, dict) else ())]
    return tuple(block for block in blocks if isinstance(block, bytes) and _JPEG_START in block)


def encode(picture: DecodedPicture, pixels: np.ndarray) -> bytes:
    """The picture with new pixels, in its own codec. Pixels equal to the old ones keep their value in the picture's own mode.

    Args:
        pixels: upright (height, width, 3) uint8 RGB of the picture's size.
    Raises:
        BadImageError: the codec cannot write this picture.
        ValueError: `pixels` has another shape.
    """
    if pixels.shape != picture.pixels.shape or pixels.dtype != np.uint8:
        raise ValueError(f"new pixels are {pixels.shape} {pixels.dtype}, the picture is {picture.pixels.shape} uint8")
    stored = np.ascontiguousarray(_turn_back(pixels, picture.orientation))
    with _refusing("the changed picture cannot be written"):
        image = _into_native(picture._native, stored)
        if picture._format == "WEBP" and not picture._save["lossless"]:
            return _encode_webp(image, picture)
        return _save(image, picture._format, picture._save)


class _refusing:
    """Turns whatever Pillow raises on hostile bytes (it has no common root) into a BadImageError with a repeatable reason."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.warnings.__exit__(kind, error, trace)
        if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            raise BadImageError("the picture has more pixels than the limit allows (a decompression bomb?)") from None
        if isinstance(error, Exception) and not isinstance(error, BadImageError):
            # Pillow names buffers by address; an address in a reason would differ from run to run.
            detail = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", str(error))[:200]
            raise BadImageError(f"{self.what}: {detail or type(error).__name__}") from None


def _open(data: bytes, limits: PictureLimits) -> Image.Image:
    found = sniff_format(data[:16])
    if found is None:
        raise BadImageError("the file is not a picture")
    if found in ("HEIF", "OTHER"):
        raise BadImageError("the picture's format is not one this tool can write back")
    try:
        image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    except Image.UnidentifiedImageError:
        raise BadImageError("the picture's header is damaged") from None
    _check_size(image, limits)
    return image


def _check_size(image: Image.Image, limits: PictureLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadImageError(f"the picture has {width} × {height} pixels; the limit is {limits.max_pixels}")
    if not width or not height:
        raise BadImageError("the picture has no pixels")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF: viewers show such a picture as stored, and so does this
        return 1
    return value if value in _TURNS else 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return _TURNS[orientation][0](pixels) if orientation in _TURNS else pixels


def _turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return _TURNS[orientation][1](pixels) if orientation in _TURNS else pixels


def _native(image: Image.Image) -> Image.Image:
    """The current frame in the mode it will be written in, with no metadata attached."""
    mode = image.mode
    if mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        native = image.copy()
    elif mode.startswith("I;16"):
        native = Image.fromarray(np.asarray(image).astype(np.uint16))
    elif mode in ("P", "PA"):
        native = image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
    elif mode == "1":
        native = image.convert("L")
    elif mode in ("YCbCr", "HSV"):
        native = image.convert("RGB")
    else:
        raise BadImageError(f"the picture's pixel type {mode} cannot be shown to a detector")
    native.info = {}
    return native


def _as_rgb(native: Image.Image) -> np.ndarray:
    if native.mode == "I;16":
        # Stretched: 12-bit cameras in 16-bit files would otherwise be black to a detector, and a face nobody sees is a leak.
        low, high = _range16(np.asarray(native))
        grey = np.rint((np.asarray(native).astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(native.convert("RGB"))


def _range16(values: np.ndarray) -> tuple[int, int]:
    low, high = int(values.min()), int(values.max())
    return low, max(high, low + 1)


def _into_native(native: Image.Image, stored: np.ndarray) -> Image.Image:
    """New RGB pixels brought to the picture's own mode; where RGB did not change, the mode's own value stays."""
    if native.mode == "RGB":
        return Image.fromarray(stored)
    changed = (stored != _as_rgb(native)).any(axis=2)
    old = np.asarray(native)
    if native.mode == "I;16":
        low, high = _range16(old)
        grey = np.asarray(Image.fromarray(stored).convert("L")).astype(np.float64)
        new = np.rint(low + grey * ((high - low) / 255)).astype(np.uint16)
        return Image.fromarray(np.where(changed, new, old).astype(np.uint16))
    if native.mode in ("LA", "RGBA"):  # transparency stays as it was
        base = np.asarray(Image.fromarray(stored).convert(native.mode))
        new = np.concatenate([base[..., :-1], old[..., -1:]], axis=2)
    else:
        new = np.asarray(Image.fromarray(stored).convert(native.mode))
    mask = changed if old.ndim == 2 else changed[..., None]
    return Image.frombytes(native.mode, native.size, np.where(mask, new, old).astype(np.uint8).tobytes())


def _save(image: Image.Image, image_format: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, format=image_format, **options)
    return out.getvalue()


def _encode_webp(image: Image.Image, picture: DecodedPicture) -> bytes:
    """The file does not say at which quality it was made: take the highest that does not outgrow it by more than a tenth."""
    encoded = b""
    for quality in WEBP_QUALITIES:
        encoded = _save(image, "WEBP", {**picture._save, "quality": quality})
        if len(encoded) <= WEBP_GROWTH * len(picture._data):
            break
    return encoded


def _save_options(image: Image.Image, data: bytes) -> dict[str, Any]:
    """How to write the picture back; read from the opened file before its metadata is let go."""
    options: dict[str, Any] = {}
    profile = image.info.get("icc_profile")
    if profile:
        options["icc_profile"] = profile
    orientation = _orientation(image)
    if orientation != 1 and image.format != "TIFF":  # Pillow turns TIFFs upright while loading
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        options["exif"] = exif.tobytes()
    dpi = image.info.get("dpi")
    if dpi and image.format in ("JPEG", "MPO", "PNG", "TIFF", "BMP") and all(0 < float(value) < 65536 for value in dpi):
        options["dpi"] = tuple(float(value) for value in dpi)
    if image.format in ("JPEG", "MPO"):
        options |= _jpeg_options(image)
    elif image.format == "PNG":
        options["compress_level"] = 6
        if image.mode in ("L", "RGB") and "transparency" in image.info:
            options["transparency"] = image.info["transparency"]
    elif image.format == "WEBP":
        options |= {"lossless": _is_lossless_webp(data), "method": 4}
        if options["lossless"]:
            options |= {"quality": 80, "exact": True}
    elif image.format == "TIFF":
        known = {"raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"}
        compression = image.info.get("compression")
        options["compression"] = compression if compression in known else "tiff_lzw"
    return options


def _is_lossless_webp(data: bytes) -> bool:
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

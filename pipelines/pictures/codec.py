"""Pictures in and out: encoded bytes -> upright RGB for the models -> bytes of the same codec and comparable quality.

What is kept in a changed picture: codec, size, pixel mode where the codec allows (grey, CMYK, alpha, 16 bits of grey), colour
profile, resolution, JPEG quantisation tables, chroma subsampling and progressive mode, the orientation tag. What is dropped:
every other EXIF tag, XMP, IPTC, comments, embedded thumbnails, and all frames after the first.

The stored pixel grid never turns: a picture with an EXIF orientation is shown upright to the models and turned back before
it is written, so that boxes and sizes in other fields of the sample stay right.

Rules where a codec cannot be followed: JPEG with chroma sampling that Pillow cannot write becomes 4:4:4; a palette picture
becomes RGB(A), and GIF gets a new palette; lossy WebP, AVIF and HEIC are written at the highest quality that does not outgrow
the original by a tenth; HEIC is turned upright. 16-bit grey and colour of PNG stay so (`pipelines.pictures.deep`). Refused are
other pictures of more than 8 bits a channel, float pixels, JPEG 2000, every other format, and HEIC without pillow-heif.

Same bytes in and same pixels in, same bytes out, with one version of Pillow.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures import heif
from diffpriv.pipelines.pictures.camera import camera_exif
from diffpriv.pipelines.pictures.deep import deep_range, is_deep, read_deep, shown, with_shown, write_deep
from diffpriv.pipelines.pictures.saving import ORIENTATION_TAG, plain, save, save_options, save_webp, with_more
from diffpriv.pipelines.quarantine import Code

READ_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", *heif.readable())
CAMERA_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")  # whose EXIF can be kept in part
# Names that promise a picture. One that this tool cannot read is quarantined, never passed on as "some other field".
PICTURE_EXTENSIONS = frozenset(
    name
    for names in (
        "jpg jpeg jpe jfif png apng webp gif tif tiff bmp dib",
        "avif avifs heic heif hif jp2 j2k jpx jxl ppm pgm pbm pnm tga psd ico",
    )
    for name in names.split()
)

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
        others: how many more pictures: thumbnails, depth and gain maps of an AVIF or HEIC. They are not looked at.
        camera_exif: an EXIF block of ours that says which camera took it and how (`pipelines.pictures.camera`); b"" for none.
        orientation: EXIF's, by which the stored picture was turned; 1 for none.
    """

    pixels: np.ndarray = field(repr=False)
    frames: int
    _data: bytes = field(repr=False)
    _native: Image.Image = field(repr=False)  # first frame in its own mode, as stored, without metadata
    _format: str
    orientation: int
    _save: dict[str, Any] = field(repr=False)
    _deep: np.ndarray | None = field(default=None, repr=False)  # the stored values of more than 8 bits a channel
    others: int = 0
    camera_exif: bytes = field(default=b"", repr=False)

    @property
    def format(self) -> str:
        """Pillow's name of it."""
        return self._format

    @property
    def stored(self) -> Image.Image:
        """The first frame in its own mode, as it lies in the file, without metadata."""
        return self._native


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
    if head[4:8] == b"ftyp" and head[8:12] in heif.BRANDS:
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
            raise BadImageError(f"the picture has {frames} frames; the limit is {limits.max_frames}", code=Code.TOO_LARGE)
        orientation = _orientation(image)  # before the pixels: Pillow turns a TIFF upright and forgets the tag
        image.load()
        _check_size(image, limits)
        options = save_options(image, data, orientation)
        camera = _camera(image, orientation)
        native = _stored(_native(image), orientation if image.format == "TIFF" else 1)
        deep = read_deep(data) if is_deep(data) else None
        rgb = _as_rgb(native) if deep is None else shown(deep[..., :3])
        pixels = np.ascontiguousarray(_turn(rgb, orientation))
        pixels.flags.writeable = False
        image_format = "JPEG" if image.format == "MPO" else str(image.format)
        others = max(heif.other_pictures(data) - (frames - 1), 0) if image_format in ("AVIF", "HEIF") else 0
        return DecodedPicture(pixels, frames, data, native, image_format, orientation, options, deep, others, camera)


def count_pixels(data: bytes) -> int:
    """Width × height from the header, nothing decoded. Raises: BadImageError."""
    with _refusing("the picture cannot be read"):
        width, height = _open(data, PictureLimits()).size
        return width * height


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) as the picture is shown, nothing decoded. Raises: BadImageError."""
    with _refusing("the picture cannot be read"):
        image = _open(data, PictureLimits())
        return image.size[::-1] if _orientation(image) >= 5 else image.size


def later_frames(picture: DecodedPicture) -> Iterator[np.ndarray]:
    """Frames after the first, each (height, width, 3) uint8 RGB, upright by the first frame's orientation.

    Raises:
        BadImageError: a frame is damaged. A frame nobody could look at must not be published.
    """
    with _refusing("a later frame of the picture cannot be read"):
        image = _open(picture._data, PictureLimits(max_pixels=1 << 62))
        for number in range(1, picture.frames):
            image.seek(number)
            turned = 1 if picture._format == "TIFF" else picture.orientation  # Pillow turned the page already
            yield np.ascontiguousarray(_turn(_as_rgb(_native(image)), turned))


def other_views(picture: DecodedPicture) -> Iterator[tuple[str, np.ndarray]]:
    """("", view) of the picture as it also looks to some viewers: its transparent parts on black and on white. (name, view) of
    what a file can hold beside the picture that is seen: its alpha channel, the low bytes of 16 bits.

    Views are (height, width, 3) uint8 RGB, upright.
    """
    values = np.asarray(picture._native)
    if picture._native.mode == "I;16":
        yield "low bytes", _turned_grey((values & 0xFF).astype(np.uint8), picture.orientation)
    if picture._deep is not None:
        low = (picture._deep & 0xFF).astype(np.uint8)
        yield "low bytes", np.ascontiguousarray(_turn(low[..., :3], picture.orientation))
        if low.shape[2] == 4:
            yield "alpha channel's low bytes", _turned_grey(low[..., 3], picture.orientation)
    if picture._native.mode in ("LA", "RGBA") and (values[..., -1] != 255).any():
        alpha = values[..., -1]
        share = np.ascontiguousarray(_turn(alpha, picture.orientation)).astype(np.float32)[..., None] / 255
        for ground in (0.0, 255.0):
            yield "", np.rint(picture.pixels * share + ground * (1 - share)).astype(np.uint8)
        yield "alpha channel", _turned_grey(alpha, picture.orientation)


def _turned_grey(values: np.ndarray, orientation: int) -> np.ndarray:
    return np.repeat(np.ascontiguousarray(_turn(values, orientation))[..., None], 3, axis=2)


def written_anew(picture: DecodedPicture, *, camera: bool = False, mark: bytes = b"") -> bytes:
    """The picture as it is, in a file of ours. Raises: BadImageError if the codec cannot write it."""
    return encode(picture, picture.pixels, anew=True, camera=camera, mark=mark)


def encode(
    picture: DecodedPicture, pixels: np.ndarray, *, anew: bool = False, camera: bool = False, mark: bytes = b""
) -> bytes:
    """The picture with new pixels, in its own codec. Pixels equal to the old ones keep their value in the picture's own mode.

    Args:
        pixels: upright (height, width, 3) uint8 RGB of the picture's size.
        anew: the file around the pixels is ours alone (`pipelines.pictures.saving`).
        camera: it goes on saying which camera took it and how.
        mark: one of `pipelines.pictures.mark`, where the codec has a place for it.
    Raises:
        BadImageError: the codec cannot write this picture.
        ValueError: `pixels` has another shape.
    """
    if pixels.shape != picture.pixels.shape or pixels.dtype != np.uint8:
        raise ValueError(f"new pixels are {pixels.shape} {pixels.dtype}, the picture is {picture.pixels.shape} uint8")
    stored = np.ascontiguousarray(_turn_back(pixels, picture.orientation))
    with _refusing("the changed picture cannot be written"):
        options = plain(picture._save, picture._format) if anew else picture._save
        options = with_more(options, picture._format, picture.camera_exif if camera else b"", mark)
        if picture._deep is not None:
            colour = with_shown(picture._deep[..., :3], stored)
            return write_deep(np.concatenate([colour, picture._deep[..., 3:]], axis=2), options)
        image = _into_native(picture._native, stored)
        if picture._format in ("AVIF", "HEIF"):
            return heif.save(image, picture._format, options, len(picture._data), anew=anew)
        if picture._format == "WEBP" and not options["lossless"]:
            return save_webp(image, options, len(picture._data))
        return save(image, picture._format, options)


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
            bomb = "the picture has more pixels than the limit allows (a decompression bomb?)"
            raise BadImageError(bomb, code=Code.TOO_LARGE) from None
        if isinstance(error, Exception) and not isinstance(error, BadImageError):
            # Pillow names buffers by address; an address in a reason would differ from run to run.
            detail = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", str(error))[:200]
            raise BadImageError(f"{self.what}: {detail or type(error).__name__}") from None


def _open(data: bytes, limits: PictureLimits) -> Image.Image:
    found = sniff_format(data[:16])
    if found is None:
        raise BadImageError("the file is not a picture", code=Code.NOT_A_PICTURE)
    if found == "OTHER" or (found == "HEIF" and heif.format_of(data) not in READ_FORMATS):
        why = "the picture's format is not one this tool can write back" + (_HEIC if found == "HEIF" else "")
        raise BadImageError(why, code=Code.UNSUPPORTED)
    if found == "TIFF" and (pages := _pages(data, limits.max_frames)) > limits.max_frames:
        raise BadImageError(f"the picture has {pages} frames or more; the limit is {limits.max_frames}", code=Code.TOO_LARGE)
    try:
        image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    except UnidentifiedImageError:
        raise BadImageError("the picture's header is damaged") from None
    _check_size(image, limits)
    if found == "HEIF":
        heif.check_depth(data, image)
    if found == "TIFF" and len(depths := image.tag_v2.get(_BITS_PER_SAMPLE, ())) > 1 and max(depths) > 8:  # type: ignore[attr-defined]
        why = "the TIFF has more than 8 bits a channel, which would be lost; convert it to 16-bit PNG"
        raise BadImageError(why, code=Code.UNSUPPORTED)
    return image


_HEIC = "; HEIC needs the extra diffpriv[heic]"
_BITS_PER_SAMPLE = 258


def _pages(data: bytes, limit: int) -> int:
    """Directories of a TIFF, counted no further than past `limit`: Pillow would parse each of 65,535 to count them."""
    big = data[2:4] in (b"+\0", b"\0+")
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    count_size, entry, pointer = (8, 20, 8) if big else (2, 12, 4)
    place = int.from_bytes(data[8:16] if big else data[4:8], order)
    pages = 0
    while place and pages <= limit and place + count_size <= len(data):
        pages += 1
        following = place + count_size + entry * int.from_bytes(data[place : place + count_size], order)
        place = int.from_bytes(data[following : following + pointer], order)
    return pages


def _check_size(image: Image.Image, limits: PictureLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadImageError(f"the picture has {width} × {height} pixels; the limit is {limits.max_pixels}", code=Code.TOO_LARGE)
    if not width or not height:
        raise BadImageError("the picture has no pixels", code=Code.NO_PICTURE)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF: viewers show such a picture as stored, and so does this
        return 1
    return value if value in _TURNS else 1


def _camera(image: Image.Image, orientation: int) -> bytes:
    try:
        return camera_exif(image.getexif(), orientation) if image.format in CAMERA_FORMATS else b""
    except Exception:  # damaged EXIF says nothing
        return b""


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
        raise BadImageError(f"the picture's pixel type {mode} cannot be shown to a detector", code=Code.UNSUPPORTED)
    native.info = {}
    return native


def _stored(upright: Image.Image, orientation: int) -> Image.Image:
    """A picture that a library has turned upright, as it lies in its file."""
    if orientation not in _TURNS:
        return upright
    stored = np.ascontiguousarray(_turn_back(np.asarray(upright), orientation))
    return _from_array(stored, upright.mode)


def _from_array(values: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(values)
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())


def _as_rgb(native: Image.Image) -> np.ndarray:
    if native.mode == "I;16":
        return np.repeat(shown(np.asarray(native))[..., None], 3, axis=2)
    return np.array(native.convert("RGB"))


def _into_native(native: Image.Image, stored: np.ndarray) -> Image.Image:
    """New RGB pixels brought to the picture's own mode; where RGB did not change, the mode's own value stays."""
    if native.mode == "RGB":
        return Image.fromarray(stored)
    changed = (stored != _as_rgb(native)).any(axis=2)
    old = np.asarray(native)
    if native.mode == "I;16":
        low, high = deep_range(old)
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

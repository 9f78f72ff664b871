"""What a camera was and how it was set (Exif 2.32, 4.6.5): make, model, lens, exposure. Kept on demand, number by number.

Never places, dates, owners, serial numbers or the maker's notes: a tag passes if it is listed here and its value is of the
tag's kind. Names are short and printable, numbers have three digits, so that neither carries much else. A rebuilt block is
rebuilt to itself.
"""

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

ORIENTATION_TAG = 0x0112
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9 ._/()+,*-]{0,47}")
_START = b"Exif\0\0"
_LONG_RUN = re.compile(r"[A-Za-z0-9]{17}")


def _name(value: Any) -> str | None:
    text = value.strip("\0 ") if isinstance(value, str) else ""
    return text if _NAME.fullmatch(text) and not _LONG_RUN.search(text) else None


def _code(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 256 else None


def _count(value: Any) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return int(f"{value:.3g}".partition("e")[0]) if isinstance(value, int) and 0 < value < 1000 else _thousands(value)


def _thousands(value: Any) -> int | None:
    return int(float(f"{value:.3g}")) if isinstance(value, int) and 1000 <= value < 60_000 else None


def _ratio(value: Any) -> IFDRational | None:
    """Three digits; of a short time, three of its inverse."""
    number = _number(value)
    if number is None or not 1e-6 < number < 1e5:
        return None
    part = 1 / Fraction(f"{1 / number:.3g}") if number < 0.25 else Fraction(f"{number:.3g}")
    return IFDRational(part.numerator, part.denominator)


def _bias(value: Any) -> IFDRational | None:
    number = _number(value)
    if number is None or abs(number) > 10:
        return None
    part = Fraction(f"{number:.2f}")
    return IFDRational(part.numerator, part.denominator)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


_BASE: Mapping[int, Callable[[Any], Any]] = {ExifTags.Base.Make: _name, ExifTags.Base.Model: _name}
_DETAILS: Mapping[int, Callable[[Any], Any]] = {
    ExifTags.Base.ExposureTime: _ratio,
    ExifTags.Base.FNumber: _ratio,
    ExifTags.Base.ExposureProgram: _code,
    ExifTags.Base.ISOSpeedRatings: _count,
    ExifTags.Base.ExposureBiasValue: _bias,
    ExifTags.Base.MeteringMode: _code,
    ExifTags.Base.LightSource: _code,
    ExifTags.Base.Flash: _code,
    ExifTags.Base.FocalLength: _ratio,
    ExifTags.Base.ExposureMode: _code,
    ExifTags.Base.WhiteBalance: _code,
    ExifTags.Base.FocalLengthIn35mmFilm: _count,
    ExifTags.Base.LensMake: _name,
    ExifTags.Base.LensModel: _name,
}


def camera_exif(exif: Image.Exif, orientation: int) -> bytes:
    """An EXIF block with the orientation and what the camera's tags say; b"" if they say nothing."""
    base = _kept(_BASE, exif)
    details = _kept(_DETAILS, exif.get_ifd(ExifTags.IFD.Exif))
    if not base and not details:
        return b""
    made = Image.Exif()
    for tag, value in base.items():
        made[tag] = value
    if orientation != 1:
        made[ORIENTATION_TAG] = orientation
    if details:
        made.get_ifd(ExifTags.IFD.Exif).update(details)
    return made.tobytes()


def _kept(rules: Mapping[int, Callable[[Any], Any]], tags: Mapping[int, Any]) -> dict[int, Any]:
    kept = {tag: rule(tags[tag]) for tag, rule in rules.items() if tag in tags}
    return {tag: value for tag, value in kept.items() if value is not None}


def is_camera_alone(image: Image.Image) -> bool:
    """Whether a file's EXIF says nothing but the orientation and what the camera's tags say, as `camera_exif` writes it."""
    exif = image.getexif()
    made = camera_exif(exif, exif.get(ORIENTATION_TAG, 1)).removeprefix(_START)
    return bool(made) and image.info.get("exif", b"").removeprefix(_START) == made


def camera_names(block: bytes) -> set[str]:
    """The names of makers, models and lenses in a block of `camera_exif`."""
    exif = Image.Exif()
    exif.load(block)
    tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    return {str(tags[tag]) for tag, rule in (*_BASE.items(), *_DETAILS.items()) if rule is _name and tag in tags}

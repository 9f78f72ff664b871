"""Numbers that may be a picture, or bytes of a file, and not what they pass for.

Labels, ages and boxes neither resemble their neighbours a row away nor fill a byte evenly. What does is looked at as a picture
by the gate's detector, or refused as packed data. Pure but for the detector that is handed in.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.formats.arrays import FLAT, has_picture_shape, pictures_in, planes_left_out
from diffpriv.pipelines.pictures.codec import count_pixels

Look = Callable[[np.ndarray], bool]  # whether a picture shows a face
ENOUGH = 512  # numbers that a file's bytes would be
PACKED = 6.8  # bits of entropy of a byte; 512 even bytes have 7.5, pixels of a photo up to 7
SMOOTH = 0.5  # correlation with the next number, above which a sequence is no packed data
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"ftyp", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
STRAY = 0.02  # share of numbers that need not be a byte
LARGEST_SHOWN = 4_000_000  # pixels
FEW_KINDS = 16  # numbers below it may be parts of bytes
ENOUGH_WIDE = 128  # whole numbers of more than MOST_BITS: a kilobyte, which a small face needs
MOST_BITS = 40  # of entropy in a whole number; times of a year in milliseconds have 35, positions in a large dataset 30
ENOUGH_DIGITS, LONG, UNLIKE = 2500, 4.0, 1.3  # digits in all, a number's digits in the mean, and their deviation
EVEN_DIGITS = 3.26  # bits of a digit when the one before is known; even ones have 3.32, numbers of a kind share first digits
_JPEG = b"\xff\xd8\xff"
_LONG_STARTS = tuple(start for start in _STARTS if len(start) > 3)


def why_not_numbers(values: np.ndarray, look: Look) -> tuple[str, str]:
    """(kind of finding, reason) if an array cannot pass as plain numbers; ("", "") if it can.

    Args:
        values: any shape; booleans, integers or floats.
    """
    if values.size < FLAT:
        return "", ""
    if holds_file(values):
        return "sidecar: picture", "its numbers are the bytes of a file"
    if shows_face(pictures_in(values), look):
        return "sidecar: picture", "seen as a picture, it shows a face"
    if planes_left_out(values.shape):
        return "not checked", f"an array of shape {values.shape} holds more pictures than are looked at"
    if not has_picture_shape(values.shape) and looks_packed(values):
        return "not checked", "its numbers are as even as packed data"
    return "", ""


def shows_face(pictures: Iterable[np.ndarray], look: Look) -> bool:
    """Whether a face is seen in a picture that numbers may make."""
    return any(look(picture) for picture in pictures if picture.shape[0] * picture.shape[1] <= LARGEST_SHOWN)


def holds_file(values: np.ndarray) -> bool:
    """Whether integers from 0 to 255 (or -128 to 127) hold the beginning of a picture, video or archive."""
    data = _bytes(values)
    return data is not None and any(start in data for start in _STARTS)


def looks_packed(values: np.ndarray) -> bool:
    """Whether numbers look like compressed bytes: of high entropy, neighbours unlike."""
    data = _bytes(values)
    if data is None or len(data) < ENOUGH:
        return False
    numbers = np.frombuffer(data[: 1 << 20], np.uint8)
    shares = np.bincount(numbers, minlength=256) / len(numbers)
    entropy = -float(np.sum(shares[shares > 0] * np.log2(shares[shares > 0])))
    centred = numbers - numbers.mean()
    smooth = float(np.dot(centred[1:], centred[:-1]) / max(float(np.dot(centred, centred)), 1e-9))
    return entropy > PACKED and smooth < SMOOTH


def why_not_wide(values: Sequence[int] | np.ndarray) -> tuple[str, str]:
    """As `why_not_numbers`, of the bytes that wide numbers are made of: a file may be cut into numbers of several bytes each.

    Args:
        values: whole numbers of any width, or an array of floats. What floats are made of is looked at for whole files only:
            the last bits of a measurement are as even as data.
    """
    if len(values) * 16 < ENOUGH:
        return "", ""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return _why_not_bytes((values.tobytes(), values.byteswap().tobytes()))
    whole = [int(value) for value in values]
    lowest, signed = min(whole), min(whole) < 0
    above = [value - lowest for value in whole]
    as_they_are = _pieces(whole, (max(value.bit_length() for value in whole) + signed + 7) // 8 or 1, signed)
    shifted = _pieces(above, (max(above).bit_length() + 7) // 8 or 1, False)
    found = _why_not_bytes(itertools.chain(as_they_are, shifted, _parts_of_bytes(above)))
    if not found[0] and _digits_are_even([str(abs(value)) for value in whole]):
        return "not checked", "its digits are as even as packed data, in numbers of no common length"
    if found[0] or len(whole) < ENOUGH_WIDE or max(above).bit_length() <= MOST_BITS:
        return found
    step = math.gcd(*above) or 1
    if _bits([value // step for value in above]) > MOST_BITS:
        return "not checked", f"its numbers say more than {MOST_BITS} bits each, as packed data and identifiers do"
    return found


def _pieces(values: list[int], width: int, signed: bool) -> Iterator[bytes]:
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        yield b"".join(value.to_bytes(width, order, signed=signed) for value in values)


def _parts_of_bytes(values: list[int]) -> Iterator[bytes]:
    """Numbers of less than 4 bits as parts of bytes, the first one highest or lowest."""
    for bits in (1, 2, 4):
        if max(values) < 1 << bits:
            low_first = np.array(values, np.uint8)[:, None] >> np.arange(bits, dtype=np.uint8) & 1
            yield np.packbits(low_first[:, ::-1]).tobytes()
            yield np.packbits(low_first, bitorder="little").tobytes()
            return


def _why_not_bytes(pieces: Iterable[bytes]) -> tuple[str, str]:
    held = any(any(start in data for start in _LONG_STARTS) or _holds_picture(data) for data in pieces)
    return ("sidecar: picture", "its numbers are the bytes of a file, several in each") if held else ("", "")


def _holds_picture(data: bytes) -> bool:
    """Whether somewhere in it a JPEG begins whose header can be read, be the picture whole or cut short."""
    place = data.find(_JPEG)
    while place >= 0:
        with contextlib.suppress(BadImageError):
            return count_pixels(data[place:]) > 0
        place = data.find(_JPEG, place + 1)
    return False


def _digits_are_even(numbers: list[str]) -> bool:
    """Whether decimal digits look like data cut anywhere by separators: numbers of one kind share a length or first digits."""
    lengths = np.array([len(number) for number in numbers])
    if lengths.sum() < ENOUGH_DIGITS or lengths.mean() < LONG or lengths.std() < UNLIKE:
        return False
    digits = np.frombuffer("".join(numbers).encode(), np.uint8) - ord("0")
    pairs = np.bincount(digits[:-1] * 10 + digits[1:], minlength=100).reshape(10, 10)
    shares = pairs / max(pairs.sum(), 1)
    given = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    return float(-np.sum(shares[pairs > 0] * np.log2(given[pairs > 0]))) > EVEN_DIGITS


def _bits(values: list[int]) -> float:
    """Entropy of a number, taken as that of its bytes one by one."""
    width = (max(values).bit_length() + 7) // 8 or 1
    planes = np.frombuffer(b"".join(value.to_bytes(width, "little") for value in values), np.uint8).reshape(-1, width)
    total = 0.0
    for plane in planes.T:
        shares = np.bincount(plane, minlength=256) / len(plane)
        total -= float(np.sum(shares[shares > 0] * np.log2(shares[shares > 0])))
    return total


def _bytes(values: np.ndarray) -> bytes | None:
    """Whole numbers as bytes, signed or not; a few that are none, such as a line's number, hide nothing."""
    flat = values.reshape(-1)
    if flat.dtype.kind not in "iubf":
        return None
    whole = np.nan_to_num(np.abs(flat.astype(np.float64)) if flat.max() > 127 else flat.astype(np.float64))
    fits = (whole == np.rint(whole)) & (whole >= -128) & (whole <= 255)
    if fits.mean() < 1 - STRAY:
        return None
    return (np.where(fits, whole, 0).astype(np.int64) & 0xFF).astype(np.uint8).tobytes()

"""Arrays of numbers: reading them without running code, and seeing the pictures that they may be.

A picture can lie in an array in any layout: grey or colour, channels first or last, one or a batch, integers or floats, or
flat, with its width known to nobody. Shapes are tried as they are; of a flat sequence, the widths at which its rows resemble
each other most.
"""

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

SMALL_SIDE = 16  # a picture of fewer rows or columns shows no face
MAX_NUMBERS = 8_000_000  # of an array that is opened
MAX_PLANES = 64  # pictures of a batch that are looked at
FLAT = SMALL_SIDE * SMALL_SIDE
LONGEST_ROW = 4096
WIDTHS = 3  # tried of a flat sequence


def read_arrays(data: bytes) -> dict[str, np.ndarray] | None:
    """The arrays of a .npy ("") or .npz file; None if it is neither, holds objects, or is too large."""
    try:
        if data.startswith(b"\x93NUMPY"):
            return {"": _read_one(data)}
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if not entries or sum(entry.file_size for entry in entries) > 8 * MAX_NUMBERS:
                return None
            # Nothing between or behind the arrays but headers: none of their fields has a length of its own but the names.
            known = sum(entry.compress_size + 2 * len(entry.filename) + 140 for entry in entries)
            if data[-22:-18] != b"PK\x05\x06" or len(data) > known + 22 or any(_says_more(data, entry) for entry in entries):
                return None
            return {entry.filename: _read_one(archive.read(entry)) for entry in entries}
    except Exception:  # whatever hostile bytes make numpy and zipfile raise: not an array
        return None


def _says_more(data: bytes, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry of an archive has a comment, or extra fields other than its size in 64 bits (APPNOTE.TXT, 4.5.3)."""
    name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
    start = entry.header_offset + 30 + name
    local = data[start : start + extra]
    return bool(entry.comment) or any(one and (one[:2] != b"\1\0" or len(one) > 32) for one in (entry.extra, local))


def _read_one(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    said = f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}".encode()
    header = data[10 if version == (1, 0) else 12 : stream.tell()]
    if header.rstrip(b" \n") != said or len(header) > len(said) + 128 or header.count(b"\n") != 1:
        raise ValueError("its header says more than a header")
    count = int(np.prod(shape, dtype=np.float64))
    if dtype.hasobject or dtype.names is not None or dtype.kind not in "biuf" or count > MAX_NUMBERS:
        raise ValueError("not an array of numbers")
    if count * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("more or less data than its shape says")
    values = np.frombuffer(data, dtype, count, stream.tell())
    return values.reshape(shape, order="F" if fortran else "C")


def has_picture_shape(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape could be seen as a picture, or a batch of them."""
    long = [side for side in shape if side >= SMALL_SIDE]
    return len(long) >= 2 and not (len(shape) == 2 and shape[-1] in (2, 3, 4))


def pictures_in(values: np.ndarray) -> Iterator[np.ndarray]:
    """(height, width, 3) uint8 of everything in an array that has the shape of a picture, or may be one laid flat."""
    values = np.squeeze(values)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.ndim >= 2 and has_picture_shape(values.shape):
        yield from _planes(values)
    elif values.size >= FLAT:
        yield from pictures_in_sequence(values.reshape(-1))


def _planes(values: np.ndarray) -> Iterator[np.ndarray]:
    if values.ndim == 2:
        yield as_picture(values)
    elif values.ndim == 3 and values.shape[2] in (3, 4) and min(values.shape[:2]) >= SMALL_SIDE:
        yield as_picture(values[..., :3])
        if values.shape[2] == 4:
            yield as_picture(values[..., 3])
    elif values.ndim == 3 and values.shape[0] in (3, 4) and min(values.shape[1:]) >= SMALL_SIDE:
        yield as_picture(np.moveaxis(values[:3], 0, 2))
        yield from (as_picture(plane) for plane in values[3:])
    elif values.ndim >= 3 and min(values.shape[-2:]) >= SMALL_SIDE and values.shape[0] <= MAX_PLANES:
        for plane in values:
            yield from _planes(plane)
    elif values.ndim >= 3 and values.shape[0] <= MAX_PLANES:
        for plane in values:
            if has_picture_shape(plane.shape):
                yield from _planes(plane)
    else:
        yield from pictures_in_sequence(values.reshape(-1))


def planes_left_out(shape: tuple[int, ...]) -> bool:
    """Whether an array holds more pictures than `pictures_in` shows one by one."""
    return len(shape) >= 3 and int(np.prod(shape[:-2])) > MAX_PLANES * 4


def as_picture(values: np.ndarray) -> np.ndarray:
    """Any numbers, (height, width) or (height, width, 3), stretched between percentiles to uint8 RGB."""
    if values.dtype == np.uint8 and int(values.max(initial=0)) - int(values.min(initial=255)) > 64:
        grey = values
    else:
        numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = np.percentile(numbers, (0.5, 99.5))
        grey = np.clip((numbers - low) * (255 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2))


def pictures_in_sequence(values: np.ndarray) -> Iterator[np.ndarray]:
    """Pictures that a run of numbers may be, at the row lengths at which neighbouring rows resemble each other most."""
    numbers = np.nan_to_num(np.asarray(values, np.float64)[: 4 * LONGEST_ROW * LONGEST_ROW // 16])
    if numbers.size < FLAT or len(np.unique(numbers[:FLAT])) < SMALL_SIDE // 2:
        return
    for length in _row_lengths(numbers):
        for channels in (1, 3, 4):
            if length % channels == 0 and length // channels >= SMALL_SIDE:
                rows = numbers.size // length
                if rows >= SMALL_SIDE:
                    block = numbers[: rows * length].reshape(rows, length // channels, channels)
                    yield as_picture(block[..., 0] if channels == 1 else block[..., :3])


def _row_lengths(numbers: np.ndarray) -> list[int]:
    """Shifts at which the sequence resembles itself most, by its autocorrelation, and the side of a square."""
    part = numbers[: 1 << 20] / max(float(np.abs(numbers[: 1 << 20]).max()), 1e-300)
    part = part - part.mean()
    size = 1 << (2 * len(part) - 1).bit_length()
    spectrum = np.fft.rfft(part, size)
    likeness = np.fft.irfft(spectrum * np.conj(spectrum), size)[: min(LONGEST_ROW * 4, len(part) // SMALL_SIDE) + 1]
    likeness /= np.maximum(len(part) - np.arange(len(likeness)), 1)
    peaks = [
        shift
        for shift in range(SMALL_SIDE, len(likeness) - 1)
        if likeness[shift] >= likeness[shift - 1] and likeness[shift] > likeness[shift + 1]
    ]
    best = sorted(peaks, key=lambda shift: -likeness[shift])[:WIDTHS]
    side = int(np.sqrt(len(numbers)))
    squares = [side] if side * side == len(numbers) else []
    return list(dict.fromkeys([*squares, *best]))


def nested_array(value: Any) -> np.ndarray | None:
    """A list of lists of numbers as an array; None where it is ragged or holds something else."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.dtype.kind in "biuf" else None

"""Colour profiles (ICC.1:2010): rebuilt from the few numbers that a matrix profile says; nothing else travels with them.

Kept are primaries, white point, adaptation matrix and tone curves; a curve given as a table is kept where it is, within half a
level of 255, that of sRGB or a power. Text, dates, serial numbers and private tags go. Profiles of other kinds (tables for CMYK
and printers) cannot be rebuilt and go altogether. Pure; a rebuilt profile is rebuilt to itself.
"""

import struct

import numpy as np

_SRGB_NUMBERS = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_SRGB_CURVE = struct.pack(">4sIHH5i", b"para", 0, 3, 0, *(round(number * 65536) for number in _SRGB_NUMBERS))
_PARA_COUNTS = (1, 3, 4, 5, 7)
_XYZ = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ")
_CURVES = {b"RGB ": (b"rTRC", b"gTRC", b"bTRC"), b"GRAY": (b"kTRC",)}
_NAME = b"rebuilt"


def rebuilt_profile(profile: bytes) -> bytes | None:
    """The profile with nothing in it but its colours; None if it is none that can be rebuilt."""
    try:
        return _rebuilt(profile)
    except (struct.error, KeyError, ValueError, IndexError):
        return None


def _rebuilt(profile: bytes) -> bytes | None:
    space, version = profile[16:20], profile[8]
    if space not in _CURVES or profile[36:40] != b"acsp" or profile[20:24] != b"XYZ " or version not in (2, 4):
        return None
    tags = _tags(profile)
    made: dict[bytes, bytes] = {b"desc": _text(version)}
    for name in _XYZ if space == b"RGB " else _XYZ[:1]:
        made[name] = _numbers(tags[name], b"XYZ ", 3)
    if b"chad" in tags and version == 4:
        made[b"chad"] = _numbers(tags[b"chad"], b"sf32", 9)
    for name in _CURVES[space]:
        made[name] = _curve(tags[name])
    return _profile(space, version, made)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    found = {}
    for number in range(min(count, 100)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        found[name] = profile[offset : offset + size]
    return found


def _numbers(tag: bytes, kind: bytes, count: int) -> bytes:
    if tag[:4] != kind:
        raise ValueError(kind)
    return kind + bytes(4) + struct.pack(f">{count}i", *struct.unpack_from(f">{count}i", tag, 8))


def _curve(tag: bytes) -> bytes:
    if tag[:4] == b"para":
        (function,) = struct.unpack_from(">H", tag, 8)
        count = _PARA_COUNTS[function]
        return b"para" + bytes(4) + struct.pack(f">HH{count}i", function, 0, *struct.unpack_from(f">{count}i", tag, 12))
    if tag[:4] != b"curv":
        raise ValueError("curve")
    (count,) = struct.unpack_from(">I", tag, 8)
    if count <= 1:
        return b"curv" + bytes(4) + struct.pack(f">I{count}H", count, *struct.unpack_from(f">{count}H", tag, 12))
    table = np.frombuffer(tag, ">u2", count, 12) / 65535
    at = np.linspace(0, 1, count)
    srgb = np.where(at <= 0.04045, at / 12.92, ((at + 0.055) / 1.055) ** 2.4)
    if np.abs(table - srgb).max() < 0.5 / 255:
        return _SRGB_CURVE
    middle = (at > 0.1) & (table > 0)
    gamma = round(float(np.median(np.log(table[middle]) / np.log(np.minimum(at[middle], 0.9999)))) * 256)
    if not 0 < gamma < 65536 or np.abs(table - at ** (gamma / 256)).max() >= 0.5 / 255:
        raise ValueError("curve")
    return b"curv" + bytes(4) + struct.pack(">IH", 1, gamma)


def _text(version: int) -> bytes:
    if version == 2:
        return b"desc" + bytes(4) + struct.pack(">I", len(_NAME) + 1) + _NAME + bytes(1 + 4 + 4 + 2 + 1 + 67)
    words = _NAME.decode().encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(words), 28) + words


def _profile(space: bytes, version: int, tags: dict[bytes, bytes]) -> bytes:
    table, body = b"", b""
    start = 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    header = struct.pack(
        ">I4sB3s4s4s4s6H4s4sIIIQIiii4s44s",
        start + len(body),
        bytes(4),
        version,
        bytes((0x20, 0, 0)) if version == 4 else bytes((0x10, 0, 0)),
        b"mntr",
        space,
        b"XYZ ",
        *(2000, 1, 1, 0, 0, 0),
        b"acsp",
        bytes(4),
        *(0, 0, 0, 0, 0),
        *(0xF6D6, 0x10000, 0xD32D),  # D50
        bytes(4),
        bytes(44),
    )
    return header + struct.pack(">I", len(tags)) + table + body

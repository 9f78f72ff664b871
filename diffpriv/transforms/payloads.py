"""What a face record carries for recovery: byte layouts of the tiers `image`, `keys` and `exact`.

A payload is sealed under its face's record before it leaves the worker; in the clear it is as sensitive as the face.

    offset  size  field
         0     1  format version (3)
         1     1  tier: 1 image, 2 keys, 3 exact
         2     1  task: 0 anonymize, 1 hide
         3     1  inversion steps (0 where no key-I)
         4    16  crop geometry a, b, x, y: four float32; picture to crop is [[a, -b, x], [b, a, y]]
        20     8  picture width and height: two uint32
        28     8  difference hash of the original crop (64 bits): how close a recovery comes
        36    16  digest of the original crop: HMAC-SHA256 under HKDF of the seed, cut to 16 bytes
    image:
        52     2  numbers m: uint16 (builtin: 1,120)
        54     n  sketch: m int8 in steps of 3/8, see `sketches`, through the map "sketch", then raw DEFLATE (RFC 1951)
    keys:
        52     3  depths d: one byte; numbers per depth n: uint16
        55   d*n  key-E, int8 (builtin: 3 x 160)
               3  channels c, height h, width w: one byte each
       1.5*c*h*w  key-I through the map "key-i", numbers of 12 bits in pairs (3 bytes a pair), two's complement, in steps of
                  1/400 (builtin: 8 x 16 x 16)
               3  detail's channels, height, width: one byte each; 0, 0, 0 where the model has none
               n  detail, int8 through the map "detail", then raw DEFLATE (builtin: 16 x 16 x 16 in about 1,830 bytes)
    exact:
        52     8  patch position x, y: two uint32
        60     n  the covered pixels of the original picture, PNG
Integers and floats are big-endian. The maps are `keyed_noise.KeyedMap` of the face's seed: a payload that leaks without its
face key holds numbers without places and signs. Decoding fails closed on any other version, tier or length.
"""

import hmac
import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffpriv.errors import RecoveryError
from diffpriv.faces.alignment import CANONICAL_SIZE, face_to_crop_matrix, warp_to_crop
from diffpriv.faces.types import Patch
from diffpriv.keyed_noise import KeyedMap, keyed_bytes
from diffpriv.transforms.base import FaceRequest

FORMAT_VERSION = 3
TIERS = {"image": 1, "keys": 2, "exact": 3}
TASKS = {"anonymize": 0, "hide": 1}
KEY_I_STEP = 1 / 400
_HEADER = struct.Struct(">BBBB4fII8s16s")
_KEY_E_SHAPE = struct.Struct(">BH")
_KEY_I_SHAPE = struct.Struct(">BBB")
_DETAIL_SHAPE = struct.Struct(">BBB")
_SKETCH_SIZE = struct.Struct(">H")
_DAMAGED = "Restore the key file from a backup."


@dataclass(frozen=True, eq=False)
class RecoveryPayload:
    """A payload, decoded. Fields a tier does not carry are None."""

    tier: str
    task: str
    inversion_steps: int
    matrix: np.ndarray  # (2, 3) float64, picture to crop
    picture_size: tuple[int, int]  # width, height
    crop_hash: bytes  # 8 bytes
    crop_digest: bytes  # 16 bytes
    key_e: np.ndarray | None = None  # (depths, numbers) int8
    key_i: np.ndarray | None = None  # (channels, height, width) float32
    detail: np.ndarray | None = None  # (channels, height, width) int8
    sketch: np.ndarray | None = None  # (numbers,) int8
    covered: np.ndarray | None = None  # (h, w, 3) uint8 RGB, the original pixels
    position: tuple[int, int] | None = None  # x, y of `covered` in the picture


def difference_hash(crop: np.ndarray) -> bytes:
    """64 bits: in an 8 x 9 grey miniature, is each place brighter than its right neighbour? Close pictures differ in few
    bits."""
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes()


def hash_distance(first: bytes, second: bytes) -> int:
    """Number of differing bits, 0 to 64; about 32 for unrelated crops."""
    return int(np.unpackbits(np.frombuffer(first, np.uint8) ^ np.frombuffer(second, np.uint8)).sum())


def crop_digest(seed: bytes, crop: np.ndarray) -> bytes:
    """Keyed, so that nobody without the face's seed can test a list of suspects against it."""
    return hmac.digest(keyed_bytes(seed, "crop-digest", 32), crop.tobytes(), "sha256")[:16]


def _header(tier: str, task: str, inversion_steps: int, request: FaceRequest) -> tuple[bytes, np.ndarray]:
    matrix = stored_matrix(request)
    crop = warp_to_crop(request.image, matrix)
    height, width = request.image.shape[:2]
    geometry = (matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2])
    digest = crop_digest(request.seed, crop)
    fields = (
        FORMAT_VERSION,
        TIERS[tier],
        TASKS[task],
        inversion_steps,
        *geometry,
        width,
        height,
        difference_hash(crop),
        digest,
    )
    return _HEADER.pack(*fields), crop


def stored_matrix(request: FaceRequest) -> np.ndarray:
    """The crop geometry after rounding to what a payload stores, so that protection and recovery use the same one."""
    matrix = face_to_crop_matrix(request.face.landmarks)
    a, b, x, y = np.array([matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2]], np.float32).astype(np.float64)
    return np.array([[a, -b, x], [b, a, y]])


def pack_key_i(noise_map: np.ndarray) -> bytes:
    """float32 noise map of an even count -> 1.5 bytes a number; values beyond +-5.1 are clipped."""
    steps = np.clip(np.rint(noise_map.ravel() / KEY_I_STEP), -2048, 2047).astype(np.int32) & 0xFFF
    first, second = steps[0::2], steps[1::2]
    packed = np.stack([first >> 4, ((first & 0xF) << 4) | (second >> 8), second & 0xFF], 1)
    return packed.astype(np.uint8).tobytes()


def unpack_key_i(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The noise map of the given shape, float32."""
    triples = np.frombuffer(packed, np.uint8).reshape(-1, 3).astype(np.int32)
    first, second = (triples[:, 0] << 4) | (triples[:, 1] >> 4), ((triples[:, 1] & 0xF) << 8) | triples[:, 2]
    steps = np.stack([first, second], 1).ravel()
    steps = np.where(steps >= 2048, steps - 4096, steps)
    return (steps * KEY_I_STEP).astype(np.float32).reshape(shape)


def encode_image(request: FaceRequest, task: str, sketch: np.ndarray) -> bytes:
    """Payload of the tier `image`.

    Args:
        sketch: (numbers,) int8, of `DiffPrivacyPipeline.sketch`.
    """
    header, _ = _header("image", task, 0, request)
    return header + _SKETCH_SIZE.pack(len(sketch)) + pack_numbers(sketch, request.seed, "sketch")


def encode_keys(
    request: FaceRequest,
    task: str,
    key_e: np.ndarray,
    key_i: np.ndarray,
    inversion_steps: int,
    detail: np.ndarray | None = None,
) -> bytes:
    """Payload of the tier `keys`.

    Args:
        key_e: (depths, numbers) int8. key_i: (channels, height, width) float32. detail: (channels, height, width) int8.
    """
    header, _ = _header("keys", task, inversion_steps, request)
    mapped = KeyedMap.of(request.seed, "key-i", key_i.size).apply(key_i.ravel())
    body = _pack_key_e(key_e) + _KEY_I_SHAPE.pack(*key_i.shape) + pack_key_i(mapped)
    if detail is None:
        return header + body + _DETAIL_SHAPE.pack(0, 0, 0)
    return header + body + _DETAIL_SHAPE.pack(*detail.shape) + pack_numbers(detail.ravel(), request.seed, "detail")


def pack_numbers(numbers: np.ndarray, seed: bytes, label: str) -> bytes:
    """(m,) int8 through the keyed map, compressed. Places are shuffled, so there is nothing to find but how often each number
    comes: Huffman codes alone.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return packer.compress(KeyedMap.of(seed, label, len(numbers)).apply(numbers).tobytes()) + packer.flush()


def _unpack_numbers(packed: bytes, count: int, seed: bytes, label: str) -> np.ndarray:
    """The inverse. Raises ValueError or zlib.error unless the bytes are one whole stream of `count` numbers."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    numbers = unpacker.decompress(packed, count + 1)
    if len(numbers) != count or not unpacker.eof or unpacker.unused_data:
        raise ValueError("not one stream of the promised length")
    return KeyedMap.of(seed, label, count).undo(np.frombuffer(numbers, np.int8))


def _pack_key_e(key_e: np.ndarray) -> bytes:
    return _KEY_E_SHAPE.pack(*key_e.shape) + np.ascontiguousarray(key_e, np.int8).tobytes()


def encode_exact(request: FaceRequest, patch: Patch, task: str = "anonymize") -> bytes:
    """Payload of the tier `exact`: every pixel that the patch covers or the crop is sampled from, losslessly."""
    header, _ = _header("exact", task, 0, request)
    x0, y0, x1, y1 = _covered_box(request, patch)
    stored = io.BytesIO()
    Image.fromarray(request.image[y0:y1, x0:x1]).save(stored, format="PNG", compress_level=6)
    return header + struct.pack(">II", x0, y0) + stored.getvalue()


def _covered_box(request: FaceRequest, patch: Patch) -> tuple[int, int, int, int]:
    """Half-open box of the patch and of the crop's square in the picture, so that the recovered crop is bit-exact too.

    Where the square reaches over the picture's edge, the crop shows mirrored pixels: the box takes in what is mirrored.
    """
    height, width = request.image.shape[:2]
    back = cv2.invertAffineTransform(stored_matrix(request))
    size = CANONICAL_SIZE
    corners = np.array([[-1, -1, 1], [size, -1, 1], [-1, size, 1], [size, size, 1]], np.float64) @ back.T
    rows, columns = patch.alpha.shape
    box = []
    for low, high, patch_low, patch_high, limit in (
        (corners[:, 0].min(), corners[:, 0].max(), patch.x, patch.x + columns, width),
        (corners[:, 1].min(), corners[:, 1].max(), patch.y, patch.y + rows, height),
    ):
        first, last = int(np.floor(low)) - 2, int(np.ceil(high)) + 3
        mirrored_from, mirrored_to = -first + 1, 2 * limit - last - 1
        last = max(last, mirrored_from) if first < 0 else last
        first = min(first, mirrored_to) if high > limit - 1 else first
        box.append((max(0, min(first, patch_low)), min(limit, max(last, patch_high))))
    return box[0][0], box[1][0], box[0][1], box[1][1]


def decode_payload(payload: bytes, seed: bytes) -> RecoveryPayload:
    """Read a payload.

    Args:
        seed: the face's. Another one gives numbers of the right size and no meaning.
    Raises:
        RecoveryError: empty, cut short, or of another version.
    """
    if not payload:
        raise RecoveryError(
            "This face was protected with recovery tier none.", advice="Nothing was kept; it cannot be recovered."
        )
    if len(payload) < _HEADER.size or payload[0] != FORMAT_VERSION:
        raise RecoveryError(
            f"The face record's payload has {len(payload)} bytes in format {payload[0]}; this program reads {FORMAT_VERSION}.",
            advice=f"Use the release that wrote it. {_DAMAGED}",
        )
    _, tier_code, task_code, steps, a, b, x, y, width, height, crop_hash, digest = _HEADER.unpack_from(payload)
    names = {code: name for name, code in TIERS.items()}
    tasks = {code: name for name, code in TASKS.items()}
    body = payload[_HEADER.size :]
    if tier_code not in names or task_code not in tasks:
        raise RecoveryError(f"The face record's payload names tier {tier_code} and task {task_code}.", advice=_DAMAGED)
    common = {
        "tier": names[tier_code],
        "task": tasks[task_code],
        "inversion_steps": steps,
        "matrix": np.array([[a, -b, x], [b, a, y]], np.float64),
        "picture_size": (width, height),
        "crop_hash": crop_hash,
        "crop_digest": digest,
    }
    if tier_code == TIERS["exact"]:
        position = struct.unpack_from(">II", body)
        with Image.open(io.BytesIO(body[8:])) as stored:
            covered = np.asarray(stored.convert("RGB"))
        return RecoveryPayload(**common, covered=covered, position=(position[0], position[1]))
    try:
        arrays = _read_sketch(body, seed) if tier_code == TIERS["image"] else _read_keys(body, seed)
        return RecoveryPayload(**common, **arrays)
    except (struct.error, ValueError, zlib.error) as error:
        raise RecoveryError(f"The face record's payload holds {len(body)} bytes of damaged keys.", advice=_DAMAGED) from error


def _read_sketch(body: bytes, seed: bytes) -> dict[str, Any]:
    """Raises ValueError, struct.error or zlib.error unless the bytes are one whole stream of the numbers promised."""
    (count,) = _SKETCH_SIZE.unpack_from(body)
    return {"sketch": _unpack_numbers(body[_SKETCH_SIZE.size :], count, seed, "sketch")}


def _read_keys(body: bytes, seed: bytes) -> dict[str, Any]:
    """key-E, key-I and detail. Raises ValueError, struct.error or zlib.error unless the body fits its shapes exactly."""
    depths, numbers = _KEY_E_SHAPE.unpack_from(body)
    end = _KEY_E_SHAPE.size + depths * numbers
    key_e = np.frombuffer(body[_KEY_E_SHAPE.size : end], np.int8).reshape(depths, numbers)
    shape = _KEY_I_SHAPE.unpack_from(body, end)
    count, start = math.prod(shape), end + _KEY_I_SHAPE.size
    end = start + 3 * count // 2
    mapped = unpack_key_i(body[start:end], (count,))
    arrays = {"key_e": key_e, "key_i": KeyedMap.of(seed, "key-i", count).undo(mapped).reshape(shape)}
    detail_shape, packed = _DETAIL_SHAPE.unpack_from(body, end), body[end + _DETAIL_SHAPE.size :]
    if any(detail_shape):
        return arrays | {"detail": _unpack_numbers(packed, math.prod(detail_shape), seed, "detail").reshape(detail_shape)}
    if packed:
        raise ValueError("bytes after the last field")
    return arrays

"""Recovery material: stored small, read back exactly, refused when damaged."""

import numpy as np
import pytest

from diffpriv.errors import RecoveryError
from diffpriv.faces.alignment import warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face
from diffpriv.keyed_noise import keyed_normal
from diffpriv.recovery import recover_face
from diffpriv.transforms.base import FaceRequest, fill_patch
from diffpriv.transforms.payloads import (
    crop_digest,
    decode_payload,
    difference_hash,
    encode_exact,
    encode_image,
    encode_keys,
    hash_distance,
    pack_key_i,
    stored_matrix,
    unpack_key_i,
)

SEED = b"s" * 32


def request_at(x: float, y: float, scale: float = 1.0, shape: tuple[int, int] = (300, 400)) -> FaceRequest:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    points = np.array([[-18, -12], [18, -12], [0, 9], [-15, 30], [15, 30]], np.float64) * scale + (x, y)
    box = (x - 34 * scale, y - 40 * scale, x + 34 * scale, y + 48 * scale)
    return FaceRequest(image, Face(box, points, 0.9), SEED)


def test_key_i_comes_back_within_half_a_step():
    noise = keyed_normal(SEED, "key-i", (8, 16, 16))
    packed = pack_key_i(noise)
    assert len(packed) == 3072
    assert np.abs(unpack_key_i(packed, noise.shape) - noise).max() <= 0.5 / 400 + 1e-6


def test_key_e_and_geometry_come_back_as_stored():
    request = request_at(200, 150)
    key_e = np.random.default_rng(1).integers(-127, 128, (3, 160)).astype(np.int8)
    payload = encode_keys(request, "hide", key_e, keyed_normal(SEED, "key-i", (8, 16, 16)), 12)
    material = decode_payload(payload, SEED)
    assert (material.tier, material.task, material.inversion_steps) == ("keys", "hide", 12)
    assert material.picture_size == (400, 300)
    assert np.array_equal(material.key_e, key_e)
    assert np.abs(material.key_i - keyed_normal(SEED, "key-i", (8, 16, 16))).max() <= 0.5 / 400 + 1e-6
    assert np.array_equal(material.matrix, stored_matrix(request))


def test_detail_comes_back_as_stored_and_under_another_seed_as_something_else():
    rng = np.random.default_rng(2)
    detail = np.rint(8 * np.tanh(rng.normal(0, 0.5, (16, 16, 16)))).astype(np.int8)
    noise = keyed_normal(SEED, "key-i", (8, 16, 16))
    payload = encode_keys(request_at(200, 150), "anonymize", np.zeros((3, 160), np.int8), noise, 4, detail)
    assert len(payload) < 6500
    material = decode_payload(payload, SEED)
    assert np.array_equal(material.detail, detail)
    assert np.abs(material.key_i - noise).max() <= 0.5 / 400 + 1e-6
    wrong = decode_payload(payload, bytes([SEED[0] ^ 1]) + SEED[1:]).detail
    assert abs(np.corrcoef(wrong.ravel(), detail.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: body + b"x"])
@pytest.mark.parametrize("detail", [None, np.zeros((16, 16, 16), np.int8)])
def test_a_damaged_detail_is_refused(damage, detail):
    noise = np.zeros((8, 16, 16), np.float32)
    payload = encode_keys(request_at(200, 150), "anonymize", np.zeros((3, 160), np.int8), noise, 4, detail)
    with pytest.raises(RecoveryError, match="damaged"):
        decode_payload(damage(payload), SEED)


def test_key_i_read_under_another_seed_is_unrelated():
    noise = keyed_normal(SEED, "key-i", (8, 16, 16))
    payload = encode_keys(request_at(200, 150), "anonymize", np.zeros((3, 160), np.int8), noise, 4)
    wrong = decode_payload(payload, bytes([SEED[0] ^ 1]) + SEED[1:]).key_i
    assert abs(np.corrcoef(wrong.ravel(), noise.ravel())[0, 1]) < 0.1


def test_tier_image_is_small_and_comes_back():
    request = request_at(200, 150)
    sketch = np.rint(np.random.default_rng(1).laplace(0, 1.0, 1120)).astype(np.int8)
    payload = encode_image(request, "anonymize", sketch)
    material = decode_payload(payload, SEED)
    assert len(payload) < 500
    assert material.tier == "image"
    assert np.array_equal(material.sketch, sketch)


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: body + b"x", lambda body: b"\xff\xff" + body[2:]])
def test_a_damaged_sketch_is_refused(damage):
    payload = encode_image(request_at(200, 150), "anonymize", np.zeros(1120, np.int8))
    with pytest.raises(RecoveryError, match="damaged"):
        decode_payload(payload[:52] + damage(payload[52:]), SEED)


@pytest.mark.parametrize(("x", "y", "scale"), [(200, 150, 1.0), (30, 30, 1.0), (380, 280, 1.0), (200, 150, 3.0), (90, 90, 0.4)])
def test_exact_brings_back_every_covered_pixel_even_at_the_edge_of_the_picture(x, y, scale):
    request = request_at(x, y, scale)
    patch = fill_patch(request)
    payload = encode_exact(request, patch)
    published = apply_patches(request.image, [patch])
    noise = np.random.default_rng(2).integers(-3, 4, published.shape)
    published = np.clip(published.astype(int) + noise, 0, 255).astype(np.uint8)  # what a lossy codec does
    recovered = recover_face(payload, SEED, published)
    assert recovered.bit_exact
    assert recovered.hash_distance == 0
    assert np.array_equal(recovered.crop, warp_to_crop(request.image, stored_matrix(request)))
    rows, columns = patch.alpha.shape
    window = (slice(patch.y, patch.y + rows), slice(patch.x, patch.x + columns))
    assert np.array_equal(recovered.picture[window], request.image[window])


def test_the_digest_of_a_crop_cannot_be_tested_without_the_seed():
    crop = request_at(200, 150).image[:128, :128]
    assert crop_digest(SEED, crop) != crop_digest(b"t" * 32, crop)


def test_hashes_of_unlike_crops_lie_far_apart():
    rng = np.random.default_rng(3)
    first, second = (rng.integers(0, 255, (128, 128, 3), dtype=np.uint8) for _ in range(2))
    assert hash_distance(difference_hash(first), difference_hash(first)) == 0
    assert hash_distance(difference_hash(first), difference_hash(second)) > 15


@pytest.mark.parametrize("cut", [0, 1, 30, 51, 200, 531, 600])
def test_a_cut_payload_is_refused_with_advice(cut):
    request = request_at(200, 150)
    payload = encode_keys(request, "anonymize", np.zeros((3, 160), np.int8), np.zeros((8, 16, 16), np.float32), 12)
    with pytest.raises(RecoveryError) as caught:
        decode_payload(payload[:cut], SEED)
    assert caught.value.advice


def test_a_picture_of_another_size_is_refused():
    request = request_at(200, 150)
    with pytest.raises(RecoveryError, match="400 x 300"):
        recover_face(encode_exact(request, fill_patch(request)), SEED, request.image[:200])


@pytest.mark.parametrize(
    ("key_e", "key_i", "detail"),
    [
        ((2, 160), (8, 16, 16), (16, 16, 16)),
        ((3, 160), (8, 32, 32), (16, 16, 16)),
        ((3, 160), (8, 16, 16), (8, 16, 16)),
        ((3, 160), (8, 16, 16), None),
    ],
)
def test_keys_of_a_model_of_another_shape_are_refused(key_e, key_i, detail):
    numbers = np.zeros(key_i, np.float32), 4, None if detail is None else np.zeros(detail, np.int8)
    payload = encode_keys(request_at(200, 150), "anonymize", np.zeros(key_e, np.int8), *numbers)
    with pytest.raises(RecoveryError, match="shapes") as caught:
        recover_face(payload, SEED, None)
    assert "model that protected" in caught.value.advice

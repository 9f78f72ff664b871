"""A replaced face has its picture's tone and grain, from its own key, and shows no edge."""

import numpy as np
import pytest

from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import apply_patches, crop_to_patch, face_mask
from diffpriv.faces.seam import blend_face, measure_seam
from tests.diffpriv.face_pictures import face_at, texture

SEED, OTHER_SEED = bytes(range(32)), bytes(range(1, 33))


def grainy(height: int, width: int) -> np.ndarray:
    """Low contrast, like skin, with the noise of a sensor."""
    noise = np.random.default_rng(8).normal(0, 5, (height, width, 1))
    return np.clip(100 + texture(height, width) * 0.2 + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    picture = grainy(600, 700)
    matrix = face_to_crop_matrix(face_at(350, 300, 3.2, 10).landmarks)
    return picture, matrix, warp_to_crop(picture, matrix)


def test_a_large_face_gets_the_grain_of_its_picture(scene):
    picture, matrix, crop = scene
    plain, blended = crop_to_patch(picture, crop, matrix, face_mask()), blend_face(picture, crop, matrix, SEED)
    before = measure_seam(picture, apply_patches(picture, [plain]), plain)
    after = measure_seam(picture, apply_patches(picture, [blended]), blended)
    assert before.grain < 0.5
    assert 0.8 < after.grain < 1.25
    assert 0.8 < after.sharpness < 1.25
    assert 0.8 < after.gradient < 1.25


def test_a_wrong_tone_is_matched_and_leaves_no_step(scene):
    picture, matrix, crop = scene
    darker = np.clip(crop.astype(int) - 15, 0, 255).astype(np.uint8)
    plain, blended = crop_to_patch(picture, darker, matrix, face_mask()), blend_face(picture, darker, matrix, SEED)
    before = measure_seam(picture, apply_patches(picture, [plain]), plain)
    after = measure_seam(picture, apply_patches(picture, [blended]), blended)
    assert before.step > 1.3
    assert after.step < 1.1


def test_the_grain_is_the_face_keys_own(scene):
    picture, matrix, crop = scene
    first, again = blend_face(picture, crop, matrix, SEED), blend_face(picture, crop, matrix, SEED)
    other = blend_face(picture, crop, matrix, OTHER_SEED)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)
    assert np.array_equal(first.alpha, crop_to_patch(picture, crop, matrix, face_mask()).alpha)


def test_a_clean_picture_gets_no_grain():
    picture = np.full((500, 500, 3), 120, np.uint8)
    matrix = face_to_crop_matrix(face_at(250, 250, 2.0).landmarks)
    patch = blend_face(picture, warp_to_crop(picture, matrix), matrix, SEED)
    assert np.array_equal(apply_patches(picture, [patch]), picture)


@pytest.mark.parametrize(("x", "y", "scale"), [(0, 100, 1.0), (199, 199, 2.0), (100, 100, 0.1), (100, 100, 5.0)])
def test_faces_at_the_edge_tiny_and_larger_than_the_picture_are_blended(x, y, scale):
    picture = grainy(200, 200)
    matrix = face_to_crop_matrix(face_at(x, y, scale).landmarks)
    patch = blend_face(picture, warp_to_crop(picture, matrix), matrix, SEED)
    assert apply_patches(picture, [patch]).shape == picture.shape


def test_recropping_the_published_face_finds_the_crop_again(scene):
    picture, matrix, _ = scene
    crop = np.clip(100 + texture(128, 128, seed=2) * 0.2, 0, 255).astype(np.uint8)
    again = warp_to_crop(apply_patches(picture, [blend_face(picture, crop, matrix, SEED)]), matrix)
    difference = again.astype(float) - crop
    inside = face_mask() >= 0.999
    assert np.abs((difference - np.median(difference[inside], axis=0))[inside]).mean() < 4

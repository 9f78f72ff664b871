"""Faces go back where they came from, and nowhere else."""

import numpy as np
import pytest

from diffpriv.faces.alignment import (
    CANONICAL_LANDMARKS,
    estimate_similarity,
    face_to_crop_matrix,
    warp_to_crop,
)
from diffpriv.faces.compositing import apply_patches, crop_to_patch, face_mask
from diffpriv.faces.types import Face, Patch
from tests.diffpriv.face_pictures import face_at, texture


def test_alignment_recovers_a_known_similarity():
    angle, scale, shift = np.deg2rad(23.0), 2.7, (310.0, 190.0)
    known = np.array(
        [
            [scale * np.cos(angle), -scale * np.sin(angle), shift[0]],
            [scale * np.sin(angle), scale * np.cos(angle), shift[1]],
        ]
    )
    points = CANONICAL_LANDMARKS @ known[:, :2].T + known[:, 2]
    assert np.allclose(estimate_similarity(CANONICAL_LANDMARKS, points), known, atol=1e-9)
    back = face_to_crop_matrix(points)
    assert np.allclose(points @ back[:, :2].T + back[:, 2], CANONICAL_LANDMARKS, atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.6, 3.0])
@pytest.mark.parametrize("degrees", [0.0, 20.0, 90.0])
def test_a_crop_put_back_and_cropped_again_is_the_same_inside_the_mask(scale, degrees):
    picture = texture(700, 800)
    face = face_at(400, 350, scale, degrees)
    matrix = face_to_crop_matrix(face.landmarks)
    crop = texture(128, 128, seed=9)
    patch = crop_to_patch(picture, crop, matrix, face_mask())
    again = warp_to_crop(apply_patches(picture, [patch]), matrix)
    inside = face_mask() >= 0.999
    error = np.abs(again.astype(int) - crop.astype(int))[inside].mean()
    assert error < (4.0 if scale < 1 else 1.5), f"mean error {error:.2f} levels"


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_compositing_touches_nothing_outside_the_masks_support(scale):
    picture = texture(900, 1000)
    matrix = face_to_crop_matrix(face_at(500, 450, scale, 15).landmarks)
    inverted = 255 - warp_to_crop(picture, matrix)
    patch = crop_to_patch(picture, inverted, matrix, face_mask())
    result = apply_patches(picture, [patch])
    rows, columns = np.mgrid[0:900, 0:1000]
    crop_x = matrix[0, 0] * columns + matrix[0, 1] * rows + matrix[0, 2]
    crop_y = matrix[1, 0] * columns + matrix[1, 1] * rows + matrix[1, 2]
    support = np.argwhere(face_mask() > 0)
    (top, left), (bottom, right) = support.min(0), support.max(0)
    slack = 1 + 1 / scale
    far = (crop_x < left - slack) | (crop_x > right + slack) | (crop_y < top - slack) | (crop_y > bottom + slack)
    changed = (result != picture).any(-1)
    assert not (changed & far).any()
    assert changed.sum() > 0.5 * (48 * scale) ** 2 * np.pi


def test_far_pixels_of_a_large_picture_keep_their_bytes():
    picture = texture(3000, 4000)
    matrix = face_to_crop_matrix(face_at(2000, 1500, 9.0).landmarks)
    patch = crop_to_patch(picture, np.zeros((128, 128, 3), np.uint8), matrix, face_mask())
    result = apply_patches(picture, [patch])
    untouched = np.ones(picture.shape[:2], bool)
    height, width = patch.alpha.shape
    untouched[patch.y : patch.y + height, patch.x : patch.x + width] = patch.alpha == 0
    assert untouched.mean() > 0.9
    assert np.array_equal(result[untouched], picture[untouched])


def test_a_face_at_the_pictures_edge_gives_a_patch_inside_it():
    picture = texture(300, 300)
    for x, y in ((0, 150), (299, 150), (150, 0), (150, 299), (5, 5)):
        matrix = face_to_crop_matrix(face_at(x, y, 1.5).landmarks)
        patch = crop_to_patch(picture, warp_to_crop(picture, matrix), matrix, face_mask())
        assert apply_patches(picture, [patch]).shape == picture.shape


def test_the_mask_covers_brows_and_jaw_and_fades_before_the_edge():
    mask = face_mask()
    assert mask.dtype == np.float32
    for x, y in ((46, 40), (82, 40), (64, 73), (64, 110), (32, 75), (96, 75), (44, 108), (84, 108)):
        assert mask[y, x] > 0.95, (x, y)
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) == 0
    assert np.abs(face_mask(256).reshape(128, 2, 128, 2).mean((1, 3)) - mask).max() < 0.02


def test_overlapping_patches_give_one_picture_in_either_order_and_never_let_the_original_through():
    picture = np.zeros((200, 200, 3), np.uint8)
    protected = Patch(40, 40, np.full((80, 80, 3), 200, np.uint8), np.ones((80, 80), np.float32))
    # The neighbour's feather still shows the original (black) and lies over the protected face.
    feather = Patch(80, 60, np.zeros((80, 80, 3), np.uint8), np.full((80, 80), 0.5, np.float32))
    first, second = apply_patches(picture, [protected, feather]), apply_patches(picture, [feather, protected])
    assert np.array_equal(first, second)
    assert first[40:120, 40:120].min() >= 199


def test_an_invalid_patch_or_face_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        Patch(0, 0, np.zeros((4, 4, 3), np.uint8), np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="outside"):
        apply_patches(texture(50, 50), [Patch(48, 0, np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.float32))])
    with pytest.raises(ValueError, match="finite"):
        Face((0, 0, 10, 10), np.full((5, 2), np.nan), 0.5)
    with pytest.raises(ValueError, match="positive"):
        Face((10, 0, 10, 10), np.zeros((5, 2)), 0.5)

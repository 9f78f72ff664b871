"""A drawn head in its photo: the old face is gone, the rest of the picture is untouched, wherever the face is."""

import dataclasses

import cv2
import numpy as np
import pytest

from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.covers import COVERS, put_in_place
from diffpriv.faces.mesh import OVAL
from diffpriv.head_viewer import WIDE_EYES, WIDE_SQUARE
from tests.diffpriv.drawn_heads import NEW_SKIN, SKIN, drawing, mesh_at, photo_at, picture_of, view_of

PLACES = {
    "middle": (200.0, 150.0),
    "left edge": (25.0, 150.0),
    "top edge": (200.0, 15.0),
    "lower right corner": (380.0, 285.0),
}
SIZE, UNIT = (400, 300), 40.0
RIM_LIGHT = 4  # levels that the coarsest octave takes over from around the outline


def inside_outline(points: np.ndarray, shrunk: float = 1.0) -> np.ndarray:
    """(height, width) bool, of the face's outline about its middle."""
    middle = points.mean(0)
    plane = np.zeros(SIZE[::-1], np.uint8)
    cv2.fillPoly(plane, [np.round(middle + shrunk * (points - middle)).astype(np.int32)], 1)
    return plane > 0


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_pixels_outside_the_patch_keep_their_bytes(cover, place):
    image, photo = photo_at(*place, UNIT, SIZE)
    before = image.copy()
    patch = put_in_place(image, photo, drawing(), cover)
    published = apply_patches(image, [patch])
    outside = np.ones(image.shape[:2], bool)
    rows, columns = patch.alpha.shape
    outside[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.alpha == 0
    assert np.array_equal(published[outside], before[outside])
    assert np.array_equal(image, before)
    assert not np.array_equal(published, before)


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_nothing_of_the_old_face_shows_inside_its_outline(cover, place):
    image, photo = photo_at(*place, UNIT, SIZE)
    patch = put_in_place(image, photo, drawing(), cover)
    alpha = np.zeros(SIZE[::-1], np.float32)
    rows, columns = patch.alpha.shape
    alpha[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.alpha
    assert (alpha[inside_outline(photo.mesh.points[list(OVAL)], 0.85)] == 1).all()


@pytest.mark.parametrize("cover", COVERS)
def test_the_new_face_has_the_drawings_skin_but_for_a_small_correction(cover):
    image, photo = photo_at(*PLACES["middle"], UNIT, SIZE)
    published = apply_patches(image, [put_in_place(image, photo, drawing(), cover)])
    nose = published[170:176, 190:210].reshape(-1, 3).mean(0)
    assert np.abs(nose - NEW_SKIN).max() < 20 < np.abs(nose - SKIN).max()


@pytest.mark.parametrize(
    "cover",
    [
        "head",
        "face",
        "square",
    ],
)
def test_two_photos_with_the_same_surroundings_get_the_same_pixels(cover):
    """What was drawn on the old face leaves no trace in the new one, whatever its features looked like."""
    image, photo = photo_at(*PLACES["middle"], UNIT, SIZE)
    other = image.copy()
    features = inside_outline(photo.mesh.points[list(OVAL)], 0.7)
    other[features] = np.random.default_rng(1).integers(0, 256, (int(features.sum()), 3))
    patches = [put_in_place(one, photo, drawing(), cover) for one in (image, other)]
    inside = patches[0].alpha == 1
    assert np.array_equal(patches[0].alpha, patches[1].alpha)
    assert np.abs(patches[0].pixels[inside].astype(int) - patches[1].pixels[inside]).max() <= RIM_LIGHT


def test_hair_that_hangs_over_the_face_stays_in_front_of_it():
    mesh = mesh_at(*PLACES["middle"], UNIT)
    view = view_of(mesh)
    image = picture_of(mesh, SIZE, (SKIN, (10, 200, 10), (0, 0, 0)))
    hair = view.hair.copy()
    hair[: hair.shape[0] // 2, hair.shape[1] // 2 - 3 : hair.shape[1] // 2 + 3] = 1
    fringe = view.in_picture((hair > view.hair).astype(np.float32), (0, 0), SIZE) > 0.9
    image[fringe] = (10, 200, 10)
    published = apply_patches(image, [put_in_place(image, type(view)(mesh, hair, view.person, view.matrix), drawing(), "face")])
    forehead = fringe & inside_outline(mesh.points[list(OVAL)], 0.8)
    strand = cv2.erode(forehead.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert strand.sum() > 50
    assert np.median(published[strand][:, 1].astype(int) - published[strand][:, 0]) > 100


def test_hair_that_towers_over_the_head_goes_with_it():
    size, eyes, tall = (400, 500), (200.0, 300.0), (10, 200, 10)
    mesh = mesh_at(*eyes, UNIT)
    view = view_of(mesh, WIDE_SQUARE, WIDE_EYES)
    image = picture_of(mesh, size, (SKIN, (70, 45, 30), (0, 0, 0)))
    tower = np.zeros(size[::-1], np.float32)
    tower[170:260, 180:220] = 1  # to more than three eye distances above the eyes
    image[tower > 0] = tall
    seen = cv2.warpAffine(tower, view.matrix, view.hair.shape[::-1])
    view = dataclasses.replace(view, hair=np.maximum(view.hair, seen), person=np.maximum(view.person, seen))
    published = apply_patches(image, [put_in_place(image, view, drawing(), "head")]).astype(int)
    left = (published[..., 1] - published[..., 0] > 60) & (published[..., 1] - published[..., 2] > 60)
    assert left.sum() == 0
    assert np.abs(published[175:205, 185:215] - 225).max() < 25  # the background goes on where hair was


def test_an_unknown_cover_or_a_face_outside_the_picture_is_refused():
    image, photo = photo_at(*PLACES["middle"], UNIT, SIZE)
    with pytest.raises(ValueError, match="hat"):
        put_in_place(image, photo, drawing(), "hat")
    with pytest.raises(ValueError, match="outside"):
        put_in_place(image, view_of(mesh_at(3000.0, 3000.0, UNIT)), drawing(), "face")

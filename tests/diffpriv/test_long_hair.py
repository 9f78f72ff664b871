"""Hair below the chin: under long new hair it takes the new hair's colour, under short new hair it goes with the old head."""

import dataclasses

import numpy as np
import pytest

from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.covers import Drawing, put_in_place
from diffpriv.faces.head_view import HeadView
from tests.diffpriv.drawn_heads import HAIR, NEW_HAIR, drawing, mesh_at, picture_of, view_of

SIZE, UNIT, EYES = (400, 400), 40.0, (200.0, 130.0)
SKIN, RED_HAIR, SHIRT = (205, 165, 140), (190, 60, 20), (40, 60, 120)


def with_long_hair(view: HeadView, lowest: float) -> HeadView:
    """The same head with hair at both sides of the face, down to so many eye distances below the eyes."""
    side = view.hair.shape[0]
    unit, eyes = side / 6.0, 0.42 * side
    rows, columns = np.mgrid[:side, :side]
    across, down = abs(columns - side / 2) / unit, (rows - eyes) / unit
    locks = (across > 1.0) & (across < 1.55) & (down > -0.4) & (down < lowest)
    face = view.face_area() > 0
    hair = np.maximum(view.hair, (locks & ~face).astype(np.float32))
    return dataclasses.replace(view, hair=hair, person=np.maximum(view.person, hair))


def painted(picture: np.ndarray, view: HeadView, colour: tuple[int, int, int]) -> np.ndarray:
    """Every pixel of hair in one colour, with some noise."""
    where = view.in_picture(view.hair, (0, 0), picture.shape[1::-1]) > 0.5
    noise = np.random.default_rng(5).normal(0, 3, picture.shape)
    return np.where(where[..., None], np.clip(np.array(colour) + noise, 0, 255), picture).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> tuple[np.ndarray, HeadView]:
    mesh = mesh_at(*EYES, UNIT)
    view = with_long_hair(view_of(mesh), 3.0)
    return painted(picture_of(mesh, SIZE, (SKIN, RED_HAIR, SHIRT)), view, RED_HAIR), view


def below_the_chin(published: np.ndarray) -> np.ndarray:
    """(n, 3) pixels where the old locks hang beside the neck."""
    return published[215:235, 146:154].reshape(-1, 3).astype(float)


def test_the_old_locks_take_the_colour_of_long_new_hair(photo):
    image, view = photo
    good = drawing()
    long = with_long_hair(good.view, 2.5)
    new = Drawing(painted(good.pixels, long, NEW_HAIR), long)
    locks = below_the_chin(apply_patches(image, [put_in_place(image, view, new, "head")])).mean(0)
    assert np.abs(below_the_chin(image).mean(0) - RED_HAIR).max() < 10
    assert np.abs(locks - NEW_HAIR).max() < 40 < np.abs(locks - RED_HAIR).max()


def test_the_old_locks_go_where_the_new_hair_is_short(photo):
    image, view = photo
    published = apply_patches(image, [put_in_place(image, view, drawing(), "head")])
    locks = below_the_chin(published)
    assert (np.abs(locks - RED_HAIR).max(1) > 40).mean() > 0.95
    assert np.abs(locks.mean(0) - HAIR).max() > 40

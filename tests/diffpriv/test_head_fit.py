"""Which drawings can stand in a photo: hats, cut heads and turned heads are told from good ones."""

import dataclasses

import cv2
import numpy as np
import pytest

from diffpriv.faces.covers import Drawing
from diffpriv.faces.head_fit import is_turned_away, rate_drawing
from diffpriv.faces.mesh import NOSE_TIP, Mesh
from tests.diffpriv.drawn_heads import drawing, mesh_at, photo_at, view_of

PHOTO = photo_at(200.0, 150.0, 40.0, (400, 300))[1]


def turned(mesh: Mesh, aside: float) -> Mesh:
    """The same face with its nose so many eye distances to the right."""
    points = mesh.points.copy()
    points[NOSE_TIP, 0] += aside * mesh.eye_distance
    return dataclasses.replace(mesh, points=points)


def test_a_frontal_head_inside_its_frame_fits():
    assert rate_drawing(PHOTO, drawing()).fault <= 1


def test_a_hat_does_not_fit():
    good = drawing()
    picture = good.pixels.copy()
    hat = good.view.in_picture(good.view.hair, (0, 0), picture.shape[1::-1]) > 0.5
    picture[hat] = (30, 160, 40)
    assert rate_drawing(PHOTO, Drawing(picture, dataclasses.replace(good.view, hair=np.zeros_like(good.view.hair)))).fault > 1


def test_a_head_that_the_frame_cuts_does_not_fit():
    good = drawing()
    side = good.pixels.shape[0]
    lower = cv2.warpAffine(good.pixels, np.float32([[1, 0, 0], [0, 1, -side * 0.2]]), (side, side))
    mesh = dataclasses.replace(good.view.mesh, points=good.view.mesh.points - np.float32([0, side * 0.2]))
    assert rate_drawing(PHOTO, Drawing(lower, view_of(mesh))).cut > rate_drawing(PHOTO, good).cut
    assert rate_drawing(PHOTO, Drawing(lower, view_of(mesh))).fault > 1


def test_a_head_whose_map_ran_into_something_beside_it_does_not_fit():
    good = drawing()
    side = good.view.hair.shape[0]
    x, y = (round(float(place)) for place in good.view.polygon((NOSE_TIP,))[0] - [0, 0.5 * good.view.unit])
    far = x + round(1.9 * good.view.unit)
    beside = np.zeros((side, side), np.float32)
    cv2.circle(beside, (far, y), side // 12, 1.0, -1)
    cv2.line(beside, (x, y), (far, y), 1.0, 4)
    hair, person = np.maximum(good.view.hair, beside), np.maximum(good.view.person, beside)
    run_on = Drawing(good.pixels, dataclasses.replace(good.view, hair=hair, person=person))
    assert rate_drawing(PHOTO, good).ragged < 0.03 < rate_drawing(PHOTO, run_on).ragged
    assert rate_drawing(PHOTO, run_on).fault > 1


@pytest.mark.parametrize("aside", [-0.3, 0.3])
def test_a_head_that_looks_elsewhere_does_not_fit(aside):
    photo = view_of(turned(mesh_at(200.0, 150.0, 40.0), aside))
    assert rate_drawing(photo, drawing()).fault > 1
    assert is_turned_away(photo)
    assert not is_turned_away(PHOTO)

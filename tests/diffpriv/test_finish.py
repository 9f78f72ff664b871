"""The last touches on a drawing: as sharp as its photo, in the tone that it was told, and nothing finer of either."""

import cv2
import numpy as np
import pytest

from diffpriv.faces.finish import MOST_TONE, match_sharpness, match_tone, measure_sharpness
from tests.diffpriv.drawn_heads import mesh_at
from tests.diffpriv.face_pictures import texture

MESH = mesh_at(128.0, 110.0, 50.0)
EVERYWHERE = np.ones((256, 256), bool)


def photo(blur: float) -> np.ndarray:
    return cv2.GaussianBlur(texture(256, 256), (0, 0), blur)


def test_sharpness_is_told_in_quarter_octaves():
    steps = [4 * np.log2(measure_sharpness(photo(blur), MESH)) for blur in (0.6, 1.0, 1.7, 3.0)]
    assert np.allclose(steps, np.round(steps))
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


@pytest.mark.parametrize(("drawn", "wanted"), [(2.5, 0.6), (0.6, 2.5)])
def test_a_drawing_comes_nearer_to_the_sharpness_of_its_photo(drawn, wanted):
    noise = np.random.default_rng(4).normal(0, 12, (256, 256, 3)).astype(np.float32)
    picture, target = (
        np.clip(128 + 3 * cv2.GaussianBlur(noise, (0, 0), blur), 0, 255).astype(np.uint8) for blur in (drawn, wanted)
    )
    levels = measure_sharpness(target, MESH)
    made = match_sharpness(picture.astype(np.float32), EVERYWHERE, levels)
    before, after = (measure_sharpness(np.clip(one, 0, 255).astype(np.uint8), MESH) for one in (picture, made))
    assert abs(np.log2(after / levels)) < abs(np.log2(before / levels))


def test_a_tone_is_met_within_bounds_and_only_on_skin():
    grey = np.full((8, 8, 3), 120, np.float32)
    skin = np.zeros((8, 8), np.float32)
    skin[:, :4] = 1
    own = cv2.cvtColor(grey / 255, cv2.COLOR_RGB2LAB)[0, 0]
    near, far = own + np.float32([5, 3, -3]), own + np.float32([60, 0, 0])
    moved = cv2.cvtColor(match_tone(grey, skin, own, near) / np.float32(255), cv2.COLOR_RGB2LAB)
    assert np.allclose(moved[:, :4], near, atol=0.5)
    assert np.allclose(moved[:, 4:], own, atol=0.5)
    bounded = cv2.cvtColor(match_tone(grey, skin, own, far) / np.float32(255), cv2.COLOR_RGB2LAB)
    assert np.allclose(bounded[:, :4], own + np.float32([MOST_TONE[0], 0, 0]), atol=0.5)


def test_a_face_outside_the_picture_is_as_unsharp_as_can_be():
    assert measure_sharpness(photo(1.0), mesh_at(3000.0, 3000.0, 50.0)) == 0.5

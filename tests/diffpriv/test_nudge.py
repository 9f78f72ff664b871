"""Nudging a face: landmarks come nearer, pixels move with them, and what is no nudge is refused."""

import numpy as np
import pytest

from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.faces.nudge import nudge


def dots(points: np.ndarray, size: int) -> np.ndarray:
    """A dark square with a bright 128th of its side at each point of the canonical square."""
    picture = np.zeros((size, size, 3), np.uint8)
    for x, y in np.rint((points + 0.5) * size / 128 - 0.5).astype(int):
        picture[y - size // 64 : y + size // 64 + 1, x - size // 64 : x + size // 64 + 1] = 255
    return picture


@pytest.mark.parametrize("size", [128, 512])
def test_what_stood_at_the_landmarks_stands_where_they_are_wanted(size):
    turned = CANONICAL_LANDMARKS @ np.array([[1.0, 0.06], [-0.06, 1.0]]).T + np.array([3.0, -4.0])
    moved = nudge(dots(turned, size), turned, CANONICAL_LANDMARKS)
    at = np.rint((CANONICAL_LANDMARKS + 0.5) * size / 128 - 0.5).astype(int)
    assert all(moved[y, x].min() > 200 for x, y in at)
    assert (dots(turned, size)[at[:, 1], at[:, 0]] == 0).any()


def test_a_face_in_its_place_stays_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    moved = nudge(picture, CANONICAL_LANDMARKS, CANONICAL_LANDMARKS)
    assert np.abs(moved.astype(int) - picture).max() <= 1


@pytest.mark.parametrize(
    "far", [CANONICAL_LANDMARKS * 1.5, CANONICAL_LANDMARKS + np.array([30.0, 0.0]), CANONICAL_LANDMARKS[::-1]]
)
def test_what_is_more_than_a_nudge_is_refused(far):
    assert nudge(np.zeros((128, 128, 3), np.uint8), CANONICAL_LANDMARKS, far) is None

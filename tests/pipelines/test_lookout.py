"""The lookout of `thorough` jobs and of the gate: faces that lie or stand on their head are found where they are."""

import numpy as np
import pytest
from skimage import data

from diffpriv.detectors import load_detector
from diffpriv.faces.types import overlap
from diffpriv.pipelines.steps.lookout import Lookout


def turned_points(points: np.ndarray, turns: int, side: int) -> np.ndarray:
    """Of np.rot90 of a square picture; pixel (i, j) has its centre at (i, j)."""
    for _ in range(turns):
        points = np.stack([points[:, 1], side - 1 - points[:, 0]], 1)
    return points


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_face_is_found_once_with_its_eyes_where_they_are(turns: int) -> None:
    picture = data.astronaut()
    (upright,) = load_detector("centerface").detect([picture])[0]
    (found,) = Lookout([load_detector("centerface")]).faces(np.ascontiguousarray(np.rot90(picture, turns)))
    box = np.array(upright.box).reshape(2, 2) - 0.5
    low, high = (edge(turned_points(box, turns, len(picture)), 0) + 0.5 for edge in (np.min, np.max))
    assert overlap(found.box, (*low, *high)) > 0.6
    apart = np.linalg.norm(found.landmarks - turned_points(upright.landmarks, turns, len(picture)), axis=1)
    assert apart.max() < 0.15 * np.linalg.norm(upright.landmarks[0] - upright.landmarks[1])

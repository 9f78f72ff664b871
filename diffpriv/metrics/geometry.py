"""What five landmarks tell about a face: where its parts are, how the head is held, how wide the mouth is.

With right and left eye r, l, nose n, mouth corners a, b; eye middle e = (r + l) / 2, mouth middle m = (a + b) / 2, eye distance
d = |l - r|; all measured along the eye line (x) and across it (y), so that a tilted head changes roll only:
    yaw    (n - e)_x / d              0 frontal, about +-0.4 in half profile; no degrees, since faces differ
    pitch  (n - e)_y / (m - e)_y      falls when the head is raised
    roll   angle of l - r, in degrees
    mouth  |b - a| / d                grows with a smile
Crude, but the same for every picture, and measured on the same detector's landmarks before and after.
"""

from dataclasses import dataclass

import numpy as np

LANDMARKS_NEAR = 0.1  # of the eye distance: the usual failure limit of landmark benchmarks
MEASURES = ("yaw", "pitch", "roll_degrees", "mouth")


def pose(landmarks: np.ndarray) -> np.ndarray:
    """(n, 5, 2) landmarks -> (n, 4): yaw, pitch, roll in degrees, mouth; NaN where the landmarks are NaN."""
    right, left, nose, first, second = (landmarks[:, index] for index in range(5))
    between = left - right
    distance = np.maximum(np.linalg.norm(between, axis=1), 1e-6)
    along = between / distance[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], 1)
    eyes, mouth = (right + left) / 2, (first + second) / 2

    def component(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
        return (vector * axis).sum(1)

    depth = component(mouth - eyes, across)
    depth = np.where(np.abs(depth) < 1e-6, np.nan, depth)
    return np.stack(
        [
            component(nose - eyes, along) / distance,
            component(nose - eyes, across) / depth,
            np.degrees(np.arctan2(between[:, 1], between[:, 0])),
            np.linalg.norm(second - first, axis=1) / distance,
        ],
        1,
    )


@dataclass(frozen=True, eq=False)
class Shift:
    """One number per face, NaN where either picture has no face.

    Attributes:
        landmarks: mean distance of the five points over the original's eye distance.
        box: 1 - intersection over union of the boxes.
        pose: (n, 4) absolute changes of MEASURES.
    """

    landmarks: np.ndarray
    box: np.ndarray
    pose: np.ndarray


def shift(before: np.ndarray, after: np.ndarray, box_before: np.ndarray, box_after: np.ndarray) -> Shift:
    """Args: landmarks (n, 5, 2) and half-open boxes (n, 4) of both pictures in one coordinate system, NaN where not found."""
    eyes = np.linalg.norm(before[:, 0] - before[:, 1], axis=1)
    moved = np.linalg.norm(after - before, axis=2).mean(1) / eyes
    return Shift(moved, 1 - _overlap(box_before, box_after), np.abs(pose(after) - pose(before)))


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    size = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0, None)
    both = size[:, 0] * size[:, 1]
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (first, second)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)

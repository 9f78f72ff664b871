"""What a face's picture says of pose, expression, light and tone: a few numbers, each coarse by choice.

A new face has to fit into the old one's place. Whatever it is told of the covered face, an attacker who trains on pairs can
read again from the result (notes on the issue of 2026-11-30 measure it), so this is all, and it is told in the steps of STEPS:
where nose and mouth are, how far the mouth and the eyes are open, the mean tone of the cheeks and from which side the light
comes.
Pure: numpy and OpenCV, no random numbers.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

from diffpriv.faces.alignment import map_points
from diffpriv.faces.mesh import (
    LEFT_LIDS,
    LIPS_INSIDE,
    MOUTH_CORNERS,
    NOSE_TIP,
    RIGHT_LIDS,
    SIDE,
    WIDTH,
    Mesh,
    sample_square,
    square_matrix,
)

RIGHT_CHEEK, LEFT_CHEEK = (50, 101, 205), (280, 330, 425)
MOUSTACHE, CHIN_FRONT, BROW_MIDDLE = (164,), (199, 175), (9, 151)
PATCH = 0.075  # radius around a point, eye distances
SEEN_FROM = 0.35  # a cheek whose share of the face's width is less is turned away: the other's tone counts


@dataclass(frozen=True)
class Appearance:
    """Lengths in eye distances, along the line of the eyes (x) and across it (y), from the middle between the eyes.

    nose_x, nose_y: the nose's tip; with the eyes' line they say how the head is turned. mouth_y: the mouth's middle.
    mouth_width: between its corners. mouth_open: between the lips. eyes_open: between the lids, the mean of both eyes.
    light, green_red, blue_yellow: median CIELAB of the cheeks (L in [0, 100]). side_light: L of the cheek on the picture's left
    minus the other's. beard: how much darker chin and upper lip are than the cheeks, L.
    """

    nose_x: float
    nose_y: float
    mouth_y: float
    mouth_width: float
    mouth_open: float
    eyes_open: float
    light: float
    green_red: float
    blue_yellow: float
    side_light: float
    beard: float

    def vector(self) -> np.ndarray:
        """(11,) float32, in the order of NAMES."""
        return np.array([getattr(self, name) for name in NAMES], np.float32)


NAMES = tuple(field.name for field in fields(Appearance))
# The new face is told these, in steps of this size; `beard` it is told by its prototype only.
STEPS = {
    "nose_x": 0.08,
    "nose_y": 0.08,
    "mouth_y": 0.08,
    "mouth_width": 0.2,
    "mouth_open": 0.1,
    "eyes_open": 0.06,
    "light": 8.0,
    "green_red": 6.0,
    "blue_yellow": 6.0,
    "side_light": 10.0,
}
TOLD = tuple(STEPS)


def coarse(appearance: np.ndarray) -> np.ndarray:
    """(..., 11) -> (..., 10), each number of TOLD at the middle of its step."""
    sizes = np.array([STEPS[name] for name in TOLD], np.float32)
    return np.round(appearance[..., : len(TOLD)] / sizes) * sizes


def measure_appearance(picture: np.ndarray, mesh: Mesh) -> Appearance:
    """The numbers of one face.

    Args:
        picture: (height, width, 3) uint8 RGB. mesh: of the face, in the picture's pixels.
    """
    along = mesh.eyes[1] - mesh.eyes[0]
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    across = np.array([-along[1], along[0]])
    unit, middle = max(mesh.eye_distance, 1e-6), mesh.eyes.mean(0)

    def place(point: np.ndarray) -> tuple[float, float]:
        offset = (point - middle) / unit
        return float(offset @ along), float(offset @ across)

    def gap(pair: tuple[int, int]) -> float:
        return float(np.linalg.norm(mesh.points[pair[0]] - mesh.points[pair[1]])) / unit

    nose, mouth = place(mesh.points[NOSE_TIP]), place(mesh.points[list(MOUTH_CORNERS)].mean(0))
    tones = _Tones(picture, mesh)
    right, left = tones.of(RIGHT_CHEEK), tones.of(LEFT_CHEEK)
    share = _share_of_right(mesh)
    cheeks = left if share < SEEN_FROM else right if share > 1 - SEEN_FROM else (left + right) / 2
    lower = min(tones.of(MOUSTACHE)[0], tones.of(CHIN_FRONT)[0])
    return Appearance(
        nose_x=nose[0],
        nose_y=nose[1],
        mouth_y=mouth[1],
        mouth_width=gap(MOUTH_CORNERS),
        mouth_open=gap(LIPS_INSIDE),
        eyes_open=(gap(RIGHT_LIDS) + gap(LEFT_LIDS)) / 2,
        light=float(cheeks[0]),
        green_red=float(cheeks[1]),
        blue_yellow=float(cheeks[2]),
        side_light=float(right[0] - left[0]),
        beard=float(cheeks[0] - lower),
    )


def _share_of_right(mesh: Mesh) -> float:
    """How much of the face's visible width lies on the subject's right of the nose, in [0, 1]."""
    edge_right, edge_left, nose = mesh.points[234, 0], mesh.points[454, 0], mesh.points[NOSE_TIP, 0]
    return float(np.clip((nose - edge_right) / max(edge_left - edge_right, 1e-6), 0, 1))


class _Tones:
    """Median colour around points of the mesh, CIELAB."""

    def __init__(self, picture: np.ndarray, mesh: Mesh) -> None:
        matrix = square_matrix(mesh.five_landmarks())
        square = sample_square(picture, matrix, SIDE).astype(np.float32) / 255
        self._lab = cv2.cvtColor(square, cv2.COLOR_RGB2LAB)
        self._points = map_points(mesh.points, matrix)
        self._radius = round(PATCH * SIDE / WIDTH)

    def of(self, numbers: tuple[int, ...]) -> np.ndarray:
        """(3,) L, a, b."""
        values = []
        for number in numbers:
            x, y = (int(np.clip(round(float(value)), self._radius, SIDE - 1 - self._radius)) for value in self._points[number])
            window = self._lab[y - self._radius : y + self._radius + 1, x - self._radius : x + self._radius + 1]
            values.append(window.reshape(-1, 3))
        return np.median(np.concatenate(values), 0)

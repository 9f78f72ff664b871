"""Laying a drawn head over a photo's: where each pixel of the picture is found in the drawing.

A similarity carries eyes and mouth onto the photo's; a thin plate spline (Bookstein 1989) then bends the drawing so that its
outline and its five landmarks meet the photo's. Nothing else inside is met: shapes of eyes, nose and mouth are the new face's
own.
Pure: numpy and OpenCV, no random numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.faces.alignment import estimate_similarity, map_points
from diffpriv.faces.mesh import LEFT_EYE, MOUTH_CORNERS, NOSE_TIP, RIGHT_EYE, Mesh

FEATURES = (*RIGHT_EYE, *LEFT_EYE, NOSE_TIP, *MOUTH_CORNERS)
STIFFNESS = 0.02  # of the plate: how much of a point's displacement may be left undone for smoothness
STRIDE = 4  # picture pixels between places where the spline is evaluated; between them it is interpolated
ANCHORS = 3.2  # eye distances from the face's middle: there and beyond nothing bends


@dataclass(frozen=True, eq=False)
class DrawingMap:
    """From picture pixels to the drawing's: (2, 3) matrix, then a spline over points in units of eye distances.

    matrix: (2, 3). unit: picture pixels of an eye distance. points: (n, 2) in units; weights: (n + 3, 2) in the drawing's
    pixels.
    """

    matrix: np.ndarray
    unit: float
    points: np.ndarray
    weights: np.ndarray

    @property
    def scale(self) -> float:
        """Drawing pixels per picture pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def places(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) picture pixels -> (n, 2) drawing pixels."""
        return map_points(points, self.matrix) + _basis(points / self.unit, self.points) @ self.weights

    def grid(self, corner: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(height, width) float32 x and y in the drawing of every pixel of a rectangle.

        Args:
            corner: (x, y) of the rectangle. size: its (width, height).
        """
        width, height = size
        across, down = -(-width // STRIDE) + 1, -(-height // STRIDE) + 1
        x, y = np.meshgrid(np.arange(across) * STRIDE + corner[0], np.arange(down) * STRIDE + corner[1])
        coarse = self.places(np.stack([x.ravel(), y.ravel()], 1).astype(np.float64)).reshape(down, across, 2)
        step = np.array([[1 / STRIDE, 0, 0], [0, 1 / STRIDE, 0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        planes = [cv2.warpAffine(coarse[..., axis].astype(np.float32), step, (width, height), flags=flags) for axis in (0, 1)]
        return planes[0], planes[1]


def fit_drawing(photo: Mesh, drawing: Mesh, outline: tuple[int, ...]) -> DrawingMap:
    """The map that lays a drawing over a photo.

    Args:
        photo, drawing: meshes, each in its own picture's pixels.
        outline: numbers of the mesh's points that are to meet.
    """
    matrix = estimate_similarity(_anchors(photo), _anchors(drawing))
    unit, middle = photo.eye_distance, photo.eyes.mean(0)
    met = [*outline, *FEATURES]
    here, there = photo.points[met].astype(np.float64), drawing.points[met].astype(np.float64)
    angles = np.arange(8) * (np.pi / 4)
    far = middle + ANCHORS * unit * np.stack([np.cos(angles), np.sin(angles)], 1)
    points = np.concatenate([here, far]) / unit
    wanted = np.concatenate([there - map_points(here, matrix), np.zeros((len(far), 2))])
    return DrawingMap(matrix, unit, points, _solve(points, wanted))


def _anchors(mesh: Mesh) -> np.ndarray:
    """Both eyes, twice, and the mouth's middle: (5, 2)."""
    mouth = mesh.five_landmarks()[3:5].mean(0, keepdims=True)
    return np.concatenate([mesh.eyes, mesh.eyes, mouth]).astype(np.float64)


def _solve(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _radial(points, points) + STIFFNESS * np.eye(count)
    system[:count, count], system[:count, count + 1 :] = 1, points
    system[count:, :count] = system[:count, count:].T
    return np.linalg.solve(system, np.concatenate([wanted, np.zeros((3, 2))]))


def _basis(at: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(m, n + 3) of the spline's terms at (m, 2) places."""
    return np.concatenate([_radial(at, points), np.ones((len(at), 1)), at], 1)


def _radial(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squared = ((first[:, None] - second[None]) ** 2).sum(2)
    return 0.5 * squared * np.log(np.maximum(squared, 1e-12))


def warp_drawing(drawing: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """The drawing as it lies over a rectangle of the picture, (height, width, channels) of its dtype.

    Averaged first where it is finer than the picture, so that nothing aliases; beyond its frame the border is repeated.

    Args:
        x, y: (height, width), where in the drawing each pixel is: `DrawingMap.grid`.
        scale: drawing pixels a picture pixel: `DrawingMap.scale`.
    """
    if scale > 1.15:
        side = max(8, round(drawing.shape[0] / scale))
        ratio = side / drawing.shape[0]
        drawing = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA)
        x, y = (x + 0.5) * ratio - 0.5, (y + 0.5) * ratio - 0.5
    kind = cv2.INTER_CUBIC if drawing.dtype == np.uint8 else cv2.INTER_LINEAR
    return cv2.remap(drawing, x.astype(np.float32), y.astype(np.float32), kind, borderMode=cv2.BORDER_REPLICATE)

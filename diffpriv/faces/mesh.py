"""Dense landmarks: 468 points of a face, for its contour, pose and expression.

The network is MediaPipe's face mesh (Kartynnik et al. 2019, arXiv 1907.06724; Apache-2.0), converted by
`diffpriv.training.tflite_export`; `load` takes it as bytes, so that this module opens no file. It reads an upright square of
3.3 eye distances around the face. Pure but for the network's session: no random numbers; one face a call, so that a face's
bits never depend on its neighbours.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.faces.alignment import estimate_similarity, map_points
from diffpriv.onnx_sessions import open_session

SIDE = 192
WIDTH = 3.3  # of the square, in eye distances
# Places of the eyes and the mouth's corners in the square, in the order of `faces.types.LANDMARK_NAMES` without the nose.
EYES_HEIGHT, MOUTH_HEIGHT = 0.41, 0.41 + 1.17 / 3.3
# The face's outline, clockwise from the middle of the forehead, in the mesh's own numbering.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
JAW = OVAL[8:29]  # from the ear on the picture's right, by the chin, to the other ear
RIGHT_EYE, LEFT_EYE = (33, 133), (362, 263)  # corners; the subject's right is the picture's left
RIGHT_LIDS, LEFT_LIDS = (159, 145), (386, 374)  # upper, lower
LIPS_INSIDE = (13, 14)
MOUTH_CORNERS = (61, 291)
NOSE_TIP, NOSE_BASE, CHIN, FOREHEAD = 1, 2, 152, 10


@dataclass(frozen=True, eq=False)
class Mesh:
    """points: (468, 2) float32 pixels of the picture. depth: (468,) float32, same unit, towards the camera is negative.

    score: how sure the network is that this is a face, in [0, 1].
    """

    points: np.ndarray
    depth: np.ndarray
    score: float

    @property
    def eyes(self) -> np.ndarray:
        """(2, 2): middles of the subject's right and left eye."""
        return np.stack([self.points[list(RIGHT_EYE)].mean(0), self.points[list(LEFT_EYE)].mean(0)])

    @property
    def eye_distance(self) -> float:
        """In space, so that it does not shrink as the head turns; pixels."""
        depths = [self.depth[list(corners)].mean() for corners in (RIGHT_EYE, LEFT_EYE)]
        return float(np.hypot(np.linalg.norm(self.eyes[1] - self.eyes[0]), depths[1] - depths[0]))

    def five_landmarks(self) -> np.ndarray:
        """(5, 2) in the order of `faces.types.LANDMARK_NAMES`."""
        corners = self.points[list(MOUTH_CORNERS)]
        return np.concatenate([self.eyes, self.points[[NOSE_TIP]], corners]).astype(np.float64)


class FaceMesh:
    """Args:
    content: of the ONNX file.
    """

    def __init__(self, content: bytes) -> None:
        self._session = open_session(content)
        self._input = self._session.get_inputs()[0].name

    def read(self, picture: np.ndarray, landmarks: np.ndarray, rounds: int = 2) -> Mesh:
        """The mesh of one face.

        Args:
            picture: (height, width, 3) uint8 RGB.
            landmarks: (5, 2) pixels, where a detector sees the face.
            rounds: the square is laid again by the mesh that was read, so that the detector's own bias does not count.
        """
        points, mesh = landmarks, None
        for _ in range(rounds):
            mesh = self._read_once(picture, points)
            points = mesh.five_landmarks()
        if mesh is None:
            raise ValueError("at least one round is needed")
        return mesh

    def _read_once(self, picture: np.ndarray, landmarks: np.ndarray) -> Mesh:
        matrix = square_matrix(landmarks)
        square = sample_square(picture, matrix, SIDE)
        raw, score = self._session.run(None, {self._input: square[None].astype(np.float32) / 255})
        numbers = raw.reshape(-1, 3)
        back = cv2.invertAffineTransform(matrix)
        scale = float(np.sqrt(abs(np.linalg.det(back[:, :2]))))
        sure = float(1 / (1 + np.exp(-np.clip(score.ravel()[0], -50, 50))))
        return Mesh(map_points(numbers[:, :2], back).astype(np.float32), (numbers[:, 2] * scale).astype(np.float32), sure)


def square_matrix(
    landmarks: np.ndarray, width: float = WIDTH, side: int = SIDE, eyes_height: float = EYES_HEIGHT
) -> np.ndarray:
    """(2, 3) from the picture to an upright square around a face.

    Args:
        landmarks: (5, 2) pixels. width: of the square in eye distances. side: of the square in pixels.
        eyes_height: of the eyes in the square, as a share of its side.
    """
    unit = side / width
    middle, eyes = side / 2, eyes_height * side
    target = np.array([[middle - unit / 2, eyes], [middle + unit / 2, eyes], [middle, eyes + 1.17 * unit]])
    mouth = landmarks[3:5].mean(0)
    return estimate_similarity(np.stack([landmarks[0], landmarks[1], mouth]), target)


def sample_square(picture: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8; averaged where the square is coarser than the picture; beyond its edge the border is repeated."""
    factor = max(1, min(8, int(np.ceil(1 / max(np.sqrt(abs(np.linalg.det(matrix[:, :2]))), 1e-6)))))
    finer = matrix * factor
    finer[:, 2] += (factor - 1) / 2
    size = (side * factor, side * factor)
    large = cv2.warpAffine(picture, finer, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA) if factor > 1 else large

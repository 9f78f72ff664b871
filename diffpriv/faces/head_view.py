"""What a head looks like to the parts that put a new one in its place: dense landmarks, and maps of hair and person.

Maps lie in an upright square around the head; `diffpriv.head_viewer` makes them. Pure geometry: numpy and OpenCV.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.faces.alignment import map_points
from diffpriv.faces.mesh import JAW, LEFT_EYE, MOUTH_CORNERS, OVAL, RIGHT_EYE, Mesh

SIDE = 256  # pixels of the square
SQUARE_WIDTH, EYES_HEIGHT = 6.0, 0.42  # of the square: eye distances across, and the height of the eyes
NOSE_TIP = 1
EYES = (*RIGHT_EYE, *LEFT_EYE)
HALF_WIDTH = 2.1  # eye distances that a head reaches sideways, at most
BEHIND = 2.5  # of how far the nose points aside
BESIDE_FACE = 0.45  # eye distances from the face's outline within which ears lie
TAIL_ASIDE = 1.5  # eye distances from the jaw's middle
BESIDE_JAW = 5  # points of the jaw at either end that lie higher than the mouth


@dataclass(frozen=True, eq=False)
class HeadView:
    """mesh: in the picture's pixels. hair, person: (256, 256) float32 in [0, 1]. matrix: (2, 3), picture to that square."""

    mesh: Mesh
    hair: np.ndarray
    person: np.ndarray
    matrix: np.ndarray

    @property
    def unit(self) -> float:
        """An eye distance in pixels of the square."""
        return self.mesh.eye_distance * float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def touches_top(self) -> bool:
        """Whether the person above the face reaches the square's upper edge."""
        middle = float(self.polygon(EYES)[:, 0].mean())
        columns = np.arange(SIDE)
        above = (columns > middle - self.unit) & (columns < middle + self.unit)
        return bool((self.person[1, above] > 0.5).any())

    def top(self) -> float:
        """The head's highest place, pixels of the picture, in an upright picture."""
        rows, columns = np.nonzero(self.head_area())
        highest = rows.argmin()
        place = np.array([[columns[highest], rows[highest]]], np.float64)
        return float(map_points(place, cv2.invertAffineTransform(self.matrix))[0, 1])

    def polygon(self, numbers: tuple[int, ...]) -> np.ndarray:
        """(n, 2) points of the mesh in the square."""
        return map_points(self.mesh.points[list(numbers)], self.matrix)

    def nose_aside(self) -> float:
        """How far right of the middle between the eyes the nose points, in eye distances: a measure of yaw."""
        aside = self.polygon((NOSE_TIP,))[0, 0] - self.polygon(EYES)[:, 0].mean()
        return float(aside / self.unit)

    def face_area(self) -> np.ndarray:
        """(256, 256) float32: 1 inside the face's outline."""
        return _filled(self.polygon(OVAL))

    def head_area(self, ears: float = 1.0) -> np.ndarray:
        """(256, 256) float32 in {0, 1}: face, ears and hair, what a new head has to cover: the person above the jaw line, and
        the person's hair below it, in one piece and without holes.

        Args:
            ears: how far down beside the jaw, from the nose's tip (0) to the mouth (1), where ears end at the latest.
        """
        near = _filled(self._around()) > 0
        head = ((self.person > 0.4) & ((self._above_jaw(ears) > 0) | (self.hair > 0.35)) & near) | (self.face_area() > 0)
        piece = (self._piece(head) | self._tail(near)).astype(np.uint8)
        outlines, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(piece, outlines, -1, 1, -1)
        return piece.astype(np.float32)

    def own_head_area(self) -> np.ndarray:
        """(256, 256) float32 in {0, 1}: as `head_area`, but only what surely is this head, since it is to be shown
        elsewhere: no collar, and far beside the face only hair, for the person map runs into people and things behind.
        """
        head = self.head_area(ears=0.5)
        across = self.polygon(OVAL)[:, 0]
        columns, margin = np.arange(SIDE)[None], BESIDE_FACE * self.unit
        far = (columns < across.min() - margin) | (columns > across.max() + margin)
        return self._piece((head > 0) & ~(far & (self.hair < 0.4))).astype(np.float32)

    def _piece(self, area: np.ndarray) -> np.ndarray:
        """(256, 256) bool: the part of an area in which the nose is."""
        _, pieces = cv2.connectedComponents(area.astype(np.uint8))
        nose = np.clip(np.round(self.polygon((NOSE_TIP,))[0]), 0, SIDE - 1).astype(int)
        return pieces == pieces[nose[1], nose[0]]

    def _tail(self, near: np.ndarray) -> np.ndarray:
        """(256, 256) bool: hair that a neck parts from the head, such as a tail of it: below the mouth, close to the neck."""
        columns = np.arange(SIDE, dtype=np.float32)[None]
        close = np.abs(columns - self.polygon(JAW)[:, 0].mean()) < TAIL_ASIDE * self.unit
        below = np.arange(SIDE, dtype=np.float32)[:, None] > self.polygon(MOUTH_CORNERS)[:, 1].mean()
        return (self.hair > 0.5) & (self.person > 0.4) & near & close & below

    def _above_jaw(self, ears: float) -> np.ndarray:
        """(256, 256) float32: 1 above the jaw line, and beside it as far down as `head_area` says."""
        jaw, far = self.polygon(JAW), 4 * SIDE
        nose, mouth = self.polygon((NOSE_TIP,))[0, 1], self.polygon(MOUTH_CORNERS)[:, 1].mean()
        level = float(nose + ears * (mouth - nose))
        line = jaw[BESIDE_JAW:-BESIDE_JAW]
        sides = [[line[-1, 0], level], [-far, level], [-far, -far], [far, -far], [far, level], [line[0, 0], level]]
        return _filled(np.concatenate([line, sides]))

    def _around(self) -> np.ndarray:
        """(n, 2) polygon in the square that a head hardly leaves, so that people beside it are no part of it.

        A head that is turned lies behind its face: the polygon's middle moves away from where the nose points.
        """
        oval, unit = self.polygon(OVAL), self.unit
        middle = oval.mean(0)
        behind = -BEHIND * unit * self.nose_aside()
        angles = np.arange(48) * (np.pi / 24)
        x, y = np.cos(angles), np.sin(angles)
        wide = np.sign(x) * np.abs(x) ** 0.7
        around = unit * np.stack([HALF_WIDTH * wide, np.where(y < 0, 4.5, 3.4) * np.sign(y) * np.abs(y) ** 0.7], 1)
        return middle + around + np.array([behind, 0.0])

    def body_area(self, head: np.ndarray) -> np.ndarray:
        """(256, 256) float32 in {0, 1}: the person without the head, given what `head_area` says."""
        return ((self.person > 0.5) & (head == 0)).astype(np.float32)

    def in_picture(self, plane: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """A plane of the square over a rectangle of the picture, (height, width) float32, 0 beyond it.

        Args:
            corner: (x, y) of the rectangle. size: its (width, height).
        """
        shifted = self.matrix.copy()
        shifted[:, 2] += shifted[:, :2] @ np.array(corner, np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(plane.astype(np.float32), shifted, size, flags=flags)


def _filled(polygon: np.ndarray) -> np.ndarray:
    plane = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(plane, [np.round(polygon).astype(np.int32)], 1)
    return plane.astype(np.float32)

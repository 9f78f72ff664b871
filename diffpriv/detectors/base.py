"""What every face detector promises, and the geometry checks that they share.

A detector either answers for a picture or raises: an empty list always means "looked and found nobody".
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from diffpriv.errors import DetectorError
from diffpriv.faces.alignment import CANONICAL_LANDMARKS, CANONICAL_SIZE, face_to_crop_matrix, map_points
from diffpriv.faces.types import Face

# Where the five landmarks lie in an upright frontal face's box, as shares of its width and height: means over photos.
BOX_LANDMARKS = np.array([[0.26, 0.39], [0.74, 0.39], [0.50, 0.58], [0.30, 0.74], [0.70, 0.74]])

# Bounds of a believable alignment. Over 120 faces of photos, upright: 1.04 to 1.32, 0.01 to 0.07, 0.04 to 0.24; turned by 40
# degrees: up to 1.50, 0.05, 0.19. Outside them the canonical mask would miss a part of the box.
SIDE_OVER_BOX = (0.95, 1.75)  # the canonical square's side over the box's larger side
RESIDUAL = 0.12  # root mean square distance to the canonical landmarks, in crop sides
CENTRE_SHIFT = 0.27  # of the box's larger side, between the box's centre and that of the canonical face


class Detector(Protocol):
    """Finds faces in pictures."""

    @property
    def identity(self) -> str:
        """Name, settings and weight digest: equal identities give equal faces on one device type."""
        ...

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Faces of each picture, sorted by falling score, then by left edge; independent of the other pictures.

        Args:
            images: (height, width, 3) uint8 RGB each, of any sizes.
        Raises:
            DetectorError: any picture could not be examined. Never an empty list instead.
        """
        ...


def check_images(images: Sequence[np.ndarray]) -> None:
    """Raise DetectorError for anything that is not a (height, width, 3) uint8 picture with at least one pixel."""
    for index, image in enumerate(images):
        if (
            not isinstance(image, np.ndarray)
            or image.ndim != 3
            or image.shape[2] != 3
            or image.dtype != np.uint8
            or not image.size
        ):
            shape = f"{getattr(image, 'shape', type(image).__name__)} {getattr(image, 'dtype', '')}".strip()
            raise DetectorError(
                f"Picture {index} of the batch is {shape}; a detector needs (height, width, 3) uint8.",
                advice="Decode it to 8-bit RGB first.",
            )


def sort_faces(faces: Sequence[Face]) -> list[Face]:
    """The order every detector answers in: falling score, then left edge, then top edge."""
    return sorted(faces, key=lambda face: (-face.score, face.box[0], face.box[1]))


def plausible_landmarks(box: tuple[float, float, float, float], landmarks: np.ndarray) -> bool:
    """Whether aligning by these landmarks would put the canonical face onto the box.

    A wrong set would move the replacement beside the face and leave the face in the picture, so detectors call this and put
    `box_landmarks` in place of an implausible set.
    """
    if not np.isfinite(landmarks).all() or np.ptp(landmarks, axis=0).max() <= 0:
        return False
    side = max(box[2] - box[0], box[3] - box[1])
    matrix = face_to_crop_matrix(landmarks, CANONICAL_SIZE)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale <= 0 or not SIDE_OVER_BOX[0] <= CANONICAL_SIZE / (scale * side) <= SIDE_OVER_BOX[1]:
        return False
    moved = map_points(landmarks, matrix)
    if np.sqrt(((moved - CANONICAL_LANDMARKS) ** 2).sum(1).mean()) > RESIDUAL * CANONICAL_SIZE:
        return False
    middle = np.array([64.0, 77.0]) - matrix[:, 2]
    centre = np.linalg.solve(matrix[:, :2], middle)
    shift = np.abs(centre - np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])).max()
    return bool(shift <= CENTRE_SHIFT * side)


def box_landmarks(box: tuple[float, float, float, float]) -> np.ndarray:
    """(5, 2) landmarks of an upright frontal face that fills the box: the fallback where a detector's own make no sense."""
    corner, extent = np.array(box[:2]), np.array([box[2] - box[0], box[3] - box[1]])
    return corner + BOX_LANDMARKS * extent

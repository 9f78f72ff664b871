"""Looking at a head: dense landmarks, and where hair and person are.

The person map is MediaPipe's selfie segmentation (Apache-2.0), converted by `diffpriv.training.tflite_export`; hair is found by
`models.hair`. One face a call, so that a face's bits never depend on its neighbours. No random numbers, no files.
"""

import cv2
import numpy as np
import torch

from diffpriv.crops import to_tensor
from diffpriv.faces.head_view import EYES_HEIGHT, SIDE, SQUARE_WIDTH, HeadView
from diffpriv.faces.mesh import FaceMesh, sample_square, square_matrix
from diffpriv.models.hair import HairNet
from diffpriv.onnx_sessions import open_session

WIDE_SQUARE, WIDE_EYES = 8.5, 0.56  # of the square for heads that reach beyond the usual one: tall hair, hats
HAIR_SIDE = 128  # pixels that the hair network reads; the person network reads SIDE


class HeadViewer:
    """Args:
    mesh: finds dense landmarks. hair: finds hair, in evaluation mode on the CPU. person: content of the ONNX file.
    """

    def __init__(self, mesh: FaceMesh, hair: HairNet, person: bytes) -> None:
        self.mesh, self._hair = mesh, hair
        self._person = open_session(person)
        self._input = self._person.get_inputs()[0].name

    def look(self, picture: np.ndarray, landmarks: np.ndarray, rounds: int = 2) -> HeadView:
        """One head.

        Args:
            picture: (height, width, 3) uint8 RGB.
            landmarks: (5, 2) pixels, about where the face is.
            rounds: of the mesh, see `FaceMesh.read`.
        """
        mesh = self.mesh.read(picture, landmarks, rounds)
        matrix = square_matrix(mesh.five_landmarks(), SQUARE_WIDTH, SIDE, EYES_HEIGHT)
        square = sample_square(picture, matrix, SIDE)
        person = self._find_person(square)
        small = cv2.resize(square, (HAIR_SIDE, HAIR_SIDE), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            hair = torch.sigmoid(self._hair(to_tensor([small])))[0].numpy()
        hair = cv2.resize(hair, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        view = HeadView(mesh, hair, person, matrix)
        return self._look_wider(picture, view) if view.touches_top() else view

    def _find_person(self, square: np.ndarray) -> np.ndarray:
        return self._person.run(None, {self._input: square[None].astype(np.float32) / 255})[0][0, ..., 0]

    def _look_wider(self, picture: np.ndarray, view: HeadView) -> HeadView:
        """The same head in a larger square, with more above it; where hair was not looked for, it is what is a person there."""
        matrix = square_matrix(view.mesh.five_landmarks(), WIDE_SQUARE, SIDE, WIDE_EYES)
        person = self._find_person(sample_square(picture, matrix, SIDE))
        back = cv2.invertAffineTransform(matrix)
        to_first = view.matrix @ np.vstack([back, [0, 0, 1]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        hair = cv2.warpAffine(view.hair, to_first, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=-1.0)
        above = np.arange(SIDE)[:, None] < WIDE_EYES * SIDE
        hair = np.where(hair < 0, np.where(above, person, 0), hair).astype(np.float32)
        return HeadView(view.mesh, hair, person, matrix)

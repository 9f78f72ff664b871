"""Looking at a finished face as an attacker and as a user would: does it match its original, is it still found as a face?

Both are measured on the face as it will stand in the picture, blended and rounded, not on what the model meant to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffpriv.detectors.base import Detector
from diffpriv.faces.alignment import CANONICAL_SIZE, map_points, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Patch
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.recognizers.base import Recognizer
from diffpriv.transforms.base import FaceRequest

VIEW_MARGIN = 32  # canonical pixels around the crop in which the detector looks
CENTRE = (64.0, 77.0)  # of the face in the canonical square
FALSE_ACCEPT_RATE = 1e-3
SMALLEST_SEEN = 24.0  # canonical pixels; faces in these views are about 90, so a smaller view will do
NEAR = 24.0  # canonical pixels: a face found further away is a neighbour
IN_PLACE = 0.09  # of the eye distance: the landmarks' mean distance up to which pose and expression count as kept
LEAST_EYES = 18.0  # canonical pixels: in a profile the eyes are too close to measure by


@dataclass(frozen=True)
class Finding:
    """similarity: to the original, see `FaceRecognizer.similarity`. matched: the user's own recogniser, if any, still takes it
    for the original's person. found: the detector sees a face where it was. in_place: with its landmarks where they were.
    """

    similarity: float
    matched: bool
    found: bool
    in_place: bool


class OutputCheck:
    """Args:
    recognizer: measures the similarity.
    judge: a recogniser that the user brings, of any kind; its threshold is that of the false-accept rate.
    """

    def __init__(self, recognizer: FaceRecognizer, detector: Detector, judge: Recognizer | None = None) -> None:
        self._recognizer, self._detector, self._judge = recognizer, detector, judge

    def examine(
        self, requests: Sequence[FaceRequest], patches: Sequence[Patch], matrices: Sequence[np.ndarray], originals: torch.Tensor
    ) -> list[Finding]:
        """One finding per face.

        Args:
            matrices: picture to 128 px canonical crop.
            originals: embeddings of the originals, (batch, dim), batch >= n. The recogniser runs in a batch of that size,
                padded, since a value's bits may depend on it.
        """
        published = [apply_patches(request.image, [patch]) for request, patch in zip(requests, patches, strict=True)]
        pairs = list(zip(published, matrices, strict=True))
        crops = [warp_to_crop(picture, matrix) for picture, matrix in pairs]
        padded = np.stack(crops + [crops[-1]] * (len(originals) - len(crops)))
        with torch.no_grad():
            pixels = torch.from_numpy(padded).to(originals.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            embedded = self._recognizer.embed_canonical(pixels)
        similarity = self._recognizer.similarity(embedded[: len(crops)], originals[: len(crops)]).tolist()
        views = [_view(picture, matrix) for picture, matrix in pairs]
        before = [_view(request.image, matrix) for request, matrix in zip(requests, matrices, strict=True)]
        landmarks = [map_points(request.face.landmarks, matrix) for request, matrix in zip(requests, matrices, strict=True)]
        seen = _compare(self._see_faces(views), self._see_faces(before), landmarks)
        matched = self._judged([request.image for request in requests], matrices, crops)
        return [Finding(alike, known, *found) for alike, known, found in zip(similarity, matched, seen, strict=True)]

    def _judged(self, pictures: Sequence[np.ndarray], matrices: Sequence[np.ndarray], crops: list[np.ndarray]) -> list[bool]:
        if self._judge is None:
            return [False] * len(crops)
        originals = np.stack([warp_to_crop(picture, matrix) for picture, matrix in zip(pictures, matrices, strict=True)])
        cosine = (self._judge.embed(np.stack(crops)) * self._judge.embed(originals)).sum(1)
        return [bool(value > self._judge.threshold(FALSE_ACCEPT_RATE)) for value in cosine]

    def _see_faces(self, views: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Landmarks in the crop of the faces that each view shows in its middle."""
        centre, seen = np.array(CENTRE) + VIEW_MARGIN, []
        for faces in self._detector.detect(views):
            middles = [np.array([(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2]) for face in faces]
            here = zip(faces, middles, strict=True)
            seen.append([face.landmarks - VIEW_MARGIN for face, middle in here if np.linalg.norm(middle - centre) <= NEAR])
        return seen


def _compare(
    after: list[list[np.ndarray]], before: list[list[np.ndarray]], landmarks: list[np.ndarray]
) -> list[tuple[bool, bool]]:
    """(a face is there, its landmarks are in place) of each face.

    In place means where the same detector sees them in the same view of the original: in views of other sizes it has other
    biases. `landmarks` stand in for an original in whose view it sees nothing.
    """
    compared = []
    for now, then, given in zip(after, before, landmarks, strict=True):
        reference = then[0] if then else given
        eyes = max(float(np.linalg.norm(reference[0] - reference[1])), LEAST_EYES)
        moved = [float(np.linalg.norm(points - reference, axis=1).mean()) for points in now]
        compared.append((bool(now), min(moved, default=np.inf) <= IN_PLACE * eyes))
    return compared


def _view(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The canonical square with a margin, upright and at a size detectors like."""
    shifted = matrix.copy()
    shifted[:, 2] += VIEW_MARGIN
    return warp_to_crop(picture, shifted, CANONICAL_SIZE + 2 * VIEW_MARGIN)

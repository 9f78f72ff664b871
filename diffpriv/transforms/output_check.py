"""Looking at a finished face as an attacker and as a user would: does it match its original, is it still found as a face?

Both are measured on the face as it will stand in the picture, blended and rounded, not on what the model meant to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffpriv.crops import to_tensor
from diffpriv.detectors.base import Detector
from diffpriv.faces.alignment import CANONICAL_SIZE, map_points, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Patch
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.recognition import Recognizer
from diffpriv.transforms.base import FaceRequest

VIEW_MARGIN = 32  # canonical pixels around the crop in which the detector looks
CENTRE = (64.0, 77.0)  # of the face in the canonical square
FALSE_ACCEPT_RATE = 1e-3
SMALLEST_SEEN = 24.0  # canonical pixels; faces in these views are about 90, so a smaller view will do
NEAR = 24.0  # canonical pixels: a face found further away is a neighbour
IN_PLACE = 0.09  # of the eye distance: the landmarks' mean distance up to which pose and expression count as kept
LEAST_EYES = 18.0  # canonical pixels: in a profile the eyes are too close to measure by


@dataclass(frozen=True)
class DetectionCheck:
    """similarity: to the original, see `FaceRecognizer.similarity`. matched: the user's own recogniser, if any, still takes it
    for the original's person. moved: how far its landmarks are from the original's, the mean as a share of the eye distance;
    infinite where the detector sees no face. landmarks: (5, 2) in the crop, where it sees them, or None.
    """

    similarity: float
    matched: bool
    moved: float
    landmarks: np.ndarray | None

    @property
    def in_place(self) -> bool:
        return self.moved <= IN_PLACE


@dataclass(frozen=True, eq=False)
class Reference:
    """An original, as its results are compared with it.

    landmarks: (5, 2) in the crop, where this detector sees them in the same view of the original, since in views of other sizes
    it has other biases; those that were given if it sees no face there. known: (dim,), the judge's embedding; no judge, dim 0.
    """

    landmarks: np.ndarray
    known: np.ndarray


class OutputCheck:
    """Args:
    recognizer: measures the similarity.
    judge: a recogniser that the user brings, of any kind; its threshold is that of the false-accept rate.
    """

    def __init__(self, recognizer: FaceRecognizer, detector: Detector, judge: Recognizer | None = None) -> None:
        self._recognizer, self._detector, self._judge = recognizer, detector, judge

    def references(self, requests: Sequence[FaceRequest], matrices: Sequence[np.ndarray]) -> list[Reference]:
        """What `examine` compares with; the same for all attempts at a face.

        Args:
            matrices: picture to 128 px canonical crop.
        """
        pairs = [(request.image, matrix) for request, matrix in zip(requests, matrices, strict=True)]
        known = np.zeros((len(pairs), 0), np.float32)
        if self._judge is not None:
            known = self._judge.embed(np.stack([warp_to_crop(*pair) for pair in pairs]))
        given = [map_points(request.face.landmarks, matrix) for request, matrix in zip(requests, matrices, strict=True)]
        seen = self._see_faces([_view(*pair) for pair in pairs])
        return [Reference(here[0] if here else points, one) for here, points, one in zip(seen, given, known, strict=True)]

    def examine(
        self,
        requests: Sequence[FaceRequest],
        patches: Sequence[Patch],
        matrices: Sequence[np.ndarray],
        references: Sequence[Reference],
        originals: torch.Tensor,
    ) -> list[DetectionCheck]:
        """What is found of each face.

        Args:
            matrices: picture to 128 px canonical crop. references: see `references`.
            originals: embeddings of the originals, (batch, dim), batch >= n. The recogniser runs in a batch of that size,
                padded, since a value's bits may depend on it.
        """
        published = [apply_patches(request.image, [patch]) for request, patch in zip(requests, patches, strict=True)]
        pairs = list(zip(published, matrices, strict=True))
        crops = [warp_to_crop(picture, matrix) for picture, matrix in pairs]
        padded = crops + [crops[-1]] * (len(originals) - len(crops))
        with torch.no_grad():
            embedded = self._recognizer.embed_canonical(to_tensor(padded, originals.device))
        similarity = self._recognizer.similarity(embedded[: len(crops)], originals[: len(crops)]).tolist()
        seen = self._see_faces([_view(picture, matrix) for picture, matrix in pairs])
        matched = self._judged(crops, references)
        moved = [_moved(now, reference.landmarks) for now, reference in zip(seen, references, strict=True)]
        found = zip(similarity, matched, moved, strict=True)
        return [DetectionCheck(alike, known, *nearest) for alike, known, nearest in found]

    def _judged(self, crops: list[np.ndarray], references: Sequence[Reference]) -> list[bool]:
        if self._judge is None:
            return [False] * len(crops)
        cosine = (self._judge.embed(np.stack(crops)) * np.stack([one.known for one in references])).sum(1)
        return [bool(value > self._judge.threshold(FALSE_ACCEPT_RATE)) for value in cosine]

    def _see_faces(self, views: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Landmarks in the crop of the faces that each view shows in its middle."""
        centre, seen = np.array(CENTRE) + VIEW_MARGIN, []
        for faces in self._detector.detect(views):
            middles = [np.array([(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2]) for face in faces]
            here = zip(faces, middles, strict=True)
            seen.append([face.landmarks - VIEW_MARGIN for face, middle in here if np.linalg.norm(middle - centre) <= NEAR])
        return seen


def _moved(seen: list[np.ndarray], reference: np.ndarray) -> tuple[float, np.ndarray | None]:
    """`DetectionCheck.moved` and `DetectionCheck.landmarks` of the nearest of the faces seen; all are (5, 2) in the crop."""
    eyes = max(float(np.linalg.norm(reference[0] - reference[1])), LEAST_EYES)
    shares = [float(np.linalg.norm(points - reference, axis=1).mean()) / eyes for points in seen]
    return min(zip(shares, seen, strict=True), key=lambda one: one[0], default=(float("inf"), None))


def _view(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The canonical square with a margin, upright and at a size detectors like."""
    shifted = matrix.copy()
    shifted[:, 2] += VIEW_MARGIN
    return warp_to_crop(picture, shifted, CANONICAL_SIZE + 2 * VIEW_MARGIN)

"""Which faces of a picture there are, and which of them are left as they are: own boxes, detector, rules, reviewers' decisions.

Faces come from the detector, from the dataset's own boxes, or from both; a reviewer may add some. Of each face, the first of
these that says anything decides:
    1. a reviewer dropped it                                       left, "dropped in review"
    2. a reviewer added it, or its centre lies in a `treat` region treated
    3. its sample's consent field has the agreed value             left, "consent"
    4. its centre lies in a `leave` region                         left, "in a region to leave"
    5. it is smaller than `min_size`, or its score is lower        left, "smaller than ..." / "score under ..."
    6. it matches a photo of the consent gallery                   left, "consent (gallery)"
    7. nothing                                                     treated
A left face is counted and named in every record of the run; it is never silently absent. Pure but for the gallery, which is
loaded once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffpriv.detectors.base import box_landmarks, sort_faces
from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.face_settings import BoxSettings, Region, RuleSettings
from diffpriv.pipelines.pictures.codec import DecodedPicture
from diffpriv.pipelines.records.samples import Sample
from diffpriv.pipelines.steps.boxes import SAME_FACE, aligned_face, given_faces, unite

Gallery = Callable[[np.ndarray, Face], bool]  # (picture, face) -> whether the face is one of the gallery's

NO_RULES = RuleSettings()


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided about a picture: action "add" (a face is here), "drop" (this is none), "redo".

    Attributes:
        box: xyxy in upright pixels; empty for "redo".
    """

    sample: str
    field: str
    action: str
    box: tuple[float, ...] = ()


@dataclass(frozen=True)
class FacePolicy:
    """See the top of this file.

    Attributes:
        decisions: shard -> its decisions.
    """

    boxes: BoxSettings | None = None
    aligned: bool = False
    rules: RuleSettings = NO_RULES
    decisions: Mapping[str, Sequence[Decision]] = field(default_factory=dict)
    gallery: Gallery | None = None

    @property
    def detects(self) -> bool:
        """Whether a detector is needed at all."""
        return not self.aligned and (self.boxes is None or self.boxes.detect == "also")

    def faces(self, sample: Sample, name: str, picture: DecodedPicture, detected: Sequence[Face]) -> list[tuple[Face, str]]:
        """Every face of one picture, and why it is left ("": it is treated).

        Args:
            name: the picture's field. detected: what the detector found, empty where none looks.
        Raises:
            BadBoxError: the sample's own boxes cannot be meant, or its picture is no aligned crop.
        """
        shape = picture.pixels.shape[:2]
        if self.aligned:
            faces = [aligned_face(shape)]
        elif self.boxes is not None:
            count = len(sample.pictures)
            faces = unite(given_faces(sample.facts, self.boxes, name, count, shape, picture.orientation), detected)
        else:
            faces = list(detected)
        decided = [one for one in self.decisions.get(sample.shard, ()) if (one.sample, one.field) == (sample.key, name)]
        added = [_face(one.box) for one in decided if one.action == "add"]
        dropped = [one.box for one in decided if one.action == "drop"]
        certain = [*added, *self._regions_without_face(faces, shape)]
        chosen = [(face, self._reason(sample, face, shape, dropped, picture.pixels)) for face in faces]
        order = {id(face): reason for face, reason in [*chosen, *((face, "") for face in certain)]}
        return [(face, order[id(face)]) for face in sort_faces([*faces, *certain])]

    def _regions_without_face(self, faces: Sequence[Face], shape: tuple[int, int]) -> list[Face]:
        height, width = shape
        empty = [region for region in self.rules.treat if not any(_within(face, (region,), shape) for face in faces)]
        return [_face((x0 * width, y0 * height, x1 * width, y1 * height)) for x0, y0, x1, y1 in empty]

    def _reason(
        self, sample: Sample, face: Face, shape: tuple[int, int], dropped: Sequence[tuple[float, ...]], pixels: np.ndarray
    ) -> str:
        rules = self.rules
        if any(overlap(face.box, (box[0], box[1], box[2], box[3])) >= SAME_FACE for box in dropped):
            return "dropped in review"
        if _within(face, rules.treat, shape):
            return ""
        if rules.consent and _text(sample.facts.get(rules.consent_field)) == rules.consent.partition("=")[2]:
            return "consent"
        if _within(face, rules.leave, shape):
            return "in a region to leave"
        if min(face.width, face.height) < rules.min_size:
            return f"smaller than {rules.min_size:g} pixels"
        if face.score < rules.min_score:
            return f"score under {rules.min_score:g}"
        if self.gallery is not None and self.gallery(pixels, face):
            return "consent (gallery)"
        return ""


def _face(box: Sequence[float]) -> Face:
    x0, y0, x1, y1 = box
    return Face((x0, y0, x1, y1), box_landmarks((x0, y0, x1, y1)), 1.0)


def _within(face: Face, regions: Sequence[Region], shape: tuple[int, int]) -> bool:
    x, y = (face.box[0] + face.box[2]) / 2 / shape[1], (face.box[1] + face.box[3]) / 2 / shape[0]
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in regions)


def _text(value: Any) -> str:
    """A field's value as a rule writes it: true and false as JSON does, text as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

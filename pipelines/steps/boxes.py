"""Faces from boxes that the dataset brings: one value of a JSON sidecar or Parquet column per sample.

    boxes    []                       looked, and nobody is there
             [box, ...] or one box    of the sample's only picture
             {picture field: boxes}   where a sample has several pictures
    box      four numbers, as `BoxSettings.format` says
             {"box" or "bbox": four numbers, "landmarks" or "kps": five points, "score": number}, all but the box optional
    points   [[x, y], ...] or ten numbers in a row; subject's right eye (the picture's left), left eye, nose, right and left
             mouth corner
A text value is read as JSON. Pixels count as in `diffpriv.faces.types`: boxes are areas, points are sampling positions.
A box that cannot be meant is an error, and its sample goes to quarantine: fewer than one pixel, a side below zero, not four
finite numbers, or a centre outside the picture (boxes may reach over its edge, as detectors' do).
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffpriv.detectors.base import box_landmarks, plausible_landmarks, sort_faces
from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.errors import DiffPrivError
from diffpriv.pipelines.face_settings import BoxSettings
from diffpriv.pipelines.quarantine import Code

SAME_FACE = 0.3  # intersection over union from which a given box and a detected one mean one face

# ArcFace's five points in a square crop of 112 pixels; recognition corpora of 96 x 112 cut 8 pixels off at either side.
ALIGNED_POINTS = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
ALIGNED_SHAPES = {(112, 112): 0.0, (112, 96): 8.0}  # (height, width) up to a common factor -> columns cut off at the left

# Stored to upright, of a point in continuous coordinates; w and h are the stored width and height. Mirrored ones swap sides.
_TURNS: dict[int, Any] = {
    2: lambda x, y, w, h: (w - x, y),
    3: lambda x, y, w, h: (w - x, h - y),
    4: lambda x, y, w, h: (x, h - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}
_MIRRORED = frozenset({2, 4, 5, 7})
_OTHER_SIDE = [1, 0, 2, 4, 3]


class BadBoxError(DiffPrivError):
    """A sample's boxes are not what the settings say. The message is the reason for its quarantine."""

    code = Code.BOX


def given_faces(
    facts: dict[str, Any], settings: BoxSettings, picture: str, pictures: int, shape: tuple[int, int], orientation: int
) -> list[Face]:
    """The faces that the sample's fields name for one of its pictures, in upright pixels; sorted as detectors sort.

    Args:
        facts: the sample's wanted fields. picture: the picture's field; pictures: how many the sample has.
        shape: (height, width), upright. orientation: EXIF's, 1 where there is none.
    Raises:
        BadBoxError: a box that cannot be meant, or, where boxes are trusted alone, none given.
    """
    values = _for_picture(facts.get(settings.field), settings, picture, pictures)
    points = _for_picture(facts.get(settings.landmarks), settings, picture, pictures) if settings.landmarks else None
    if values is None:
        return []
    boxes = _as_list(values, settings.field)
    landmarks: list[Any] = [None] * len(boxes)
    if points is not None:
        if not isinstance(points, list) or len(points) != len(boxes):
            raise BadBoxError(f"{settings.landmarks!r} does not have one entry for each of its {len(boxes)} boxes")
        landmarks = points
    reader = _Reader(settings, shape, orientation)
    return sort_faces([reader.face(number, one, five) for number, (one, five) in enumerate(zip(boxes, landmarks, strict=True))])


def _for_picture(value: Any, settings: BoxSettings, picture: str, pictures: int) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadBoxError(f"its field {settings.field!r} is text, but not JSON") from None
    if isinstance(value, dict) and not _BOX_NAMES & value.keys():
        value = value.get(picture)
    elif value is not None and pictures > 1:
        raise BadBoxError(f"it has {pictures} pictures, and {settings.field!r} does not say which one its boxes are of")
    if value is None and settings.detect == "never":
        raise BadBoxError(f"it has no boxes in {settings.field!r}, and no detector looks for faces")
    return value


_BOX_NAMES = {"box", "bbox"}


def _as_list(values: Any, field: str) -> list[Any]:
    if isinstance(values, dict):
        return [values]
    if not isinstance(values, list):
        raise BadBoxError(f"its field {field!r} holds no list of boxes")
    return [values] if values and not isinstance(values[0], (list, dict)) else values


class _Reader:
    """Boxes of one picture."""

    def __init__(self, settings: BoxSettings, shape: tuple[int, int], orientation: int) -> None:
        self._settings = settings
        self._turn = _TURNS.get(orientation) if settings.grid == "stored" else None
        self._mirrored = self._turn is not None and orientation in _MIRRORED
        height, width = shape
        self._width, self._height = (height, width) if self._turn is not None and orientation >= 5 else (width, height)

    def face(self, number: int, value: Any, points: Any) -> Face:
        score: Any = 1.0
        if isinstance(value, dict):
            points = points if points is not None else value.get("landmarks", value.get("kps"))
            score = value.get("score", 1.0)
            value = value.get("box", value.get("bbox"))
        where = f"box {number} of {self._settings.field!r}"
        box = self._box(where, _numbers(where, value, 4))
        (score,) = _numbers(f"the score of {where}", [score], 1)
        five = self._points(f"the landmarks of {where}", points) if points is not None else None
        box, five = self._upright(box, five)
        # A wrong set of points would put the replacement beside the face.
        return Face(box, five if five is not None and plausible_landmarks(box, five) else box_landmarks(box), score)

    def _box(self, where: str, four: list[float]) -> tuple[float, float, float, float]:
        a, b, c, d = four
        if self._settings.format == "xywh":
            box = (a, b, a + c, b + d)
        elif self._settings.format == "cxcywh":
            box = (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
        elif self._settings.format == "albumentations":
            box = (a * self._width, b * self._height, c * self._width, d * self._height)
        else:
            box = (a, b, c, d)
        if box[2] <= box[0] or box[3] <= box[1]:
            raise BadBoxError(f"{where} has no positive width and height")
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            raise BadBoxError(f"{where} is smaller than a pixel")
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not (0 <= x <= self._width and 0 <= y <= self._height):
            raise BadBoxError(f"{where} lies outside the picture")
        return box

    def _points(self, where: str, value: Any) -> np.ndarray:
        if isinstance(value, list) and len(value) == 5:
            value = [number for point in value for number in _numbers(where, point, 2)]
        points = np.array(_numbers(where, value, 10)).reshape(5, 2)
        return points * [self._width, self._height] if self._settings.format == "albumentations" else points

    def _upright(
        self, box: tuple[float, float, float, float], points: np.ndarray | None
    ) -> tuple[tuple[float, float, float, float], np.ndarray | None]:
        if self._turn is None:
            return box, points
        xs, ys = zip(*(self._turn(x, y, self._width, self._height) for x, y in (box[:2], box[2:])), strict=True)
        if points is not None:
            turned = np.array([self._turn(x + 0.5, y + 0.5, self._width, self._height) for x, y in points]) - 0.5
            points = turned[_OTHER_SIDE] if self._mirrored else turned
        return (min(xs), min(ys), max(xs), max(ys)), points


def _numbers(where: str, value: Any, count: int) -> list[float]:
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise BadBoxError(f"{where} does not have {count} numbers")
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) for one in value):
        raise BadBoxError(f"{where} holds something that is not a finite number")
    return [float(one) for one in value]


def unite(given: Sequence[Face], detected: Sequence[Face]) -> list[Face]:
    """Every given and every detected face; where both mean one face, the smallest box around both boxes.

    The detector's landmarks stand in where the given ones were only a guess from the box.
    """
    left = list(detected)
    faces = []
    for face in given:
        twin = max(left, key=lambda one: overlap(face.box, one.box), default=None)
        if twin is None or overlap(face.box, twin.box) < SAME_FACE:
            faces.append(face)
            continue
        left.remove(twin)
        wide = (
            min(face.box[0], twin.box[0]),
            min(face.box[1], twin.box[1]),
            max(face.box[2], twin.box[2]),
            max(face.box[3], twin.box[3]),
        )
        guessed = np.array_equal(face.landmarks, box_landmarks(face.box))
        points = twin.landmarks if guessed else face.landmarks
        if not plausible_landmarks(wide, points):
            points = box_landmarks(wide)
        faces.append(Face(wide, points, max(face.score, twin.score)))
    return sort_faces([*faces, *left])


def aligned_face(shape: tuple[int, int]) -> Face:
    """The face of a picture that is one aligned crop: the whole of it, landmarks where ArcFace's alignment puts them.

    Raises:
        BadBoxError: the picture is neither square nor 96 : 112.
    """
    height, width = shape
    for (rows, columns), cut in ALIGNED_SHAPES.items():
        if abs(height * columns - width * rows) <= rows + columns:  # a pixel of rounding at either side
            scale = height / rows
            points = (ALIGNED_POINTS - [cut, 0.0] + 0.5) * scale - 0.5
            return Face((0.0, 0.0, float(width), float(height)), points, 1.0)
    raise BadBoxError(f"its picture of {width} x {height} is no aligned face crop (square, or 96 : 112)")

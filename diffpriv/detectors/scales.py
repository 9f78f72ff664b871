"""Where a detector looks: levels of a picture, their tiles, and a close view of one candidate.

A detector of this kind sees a face surely between about 25 and 500 input pixels of height, and gives weaker signs of it from 14
to 900 (measured by benchmarks/detection.py). So a picture is shown at levels a factor of LEVEL_STEP apart, the finest one such
that the smallest wanted face is SMALLEST pixels high, until the coarsest fits LARGEST; weak signs are then looked at again,
close up at COMFORTABLE pixels, before they count. That costs a third less than full size and finds more.

Pure geometry: what is shown depends on the picture's size and the candidate's box only.
"""

from dataclasses import dataclass

import numpy as np

SMALLEST = 16.0  # input height of the smallest wanted face at the finest level
LARGEST = 800  # a level's long side, in input pixels, that needs no coarser one
LEVEL_STEP = 4
MAX_ENLARGEMENT = 2.0  # beyond it a picture gets blurrier, not clearer
TILE = 1024  # side of a tile, input pixels
TILE_OVERLAP = 160  # faces up to this size are whole in some tile; larger ones are found on the next level
MAX_UNTILED = 1_300_000  # input pixels up to which a level is shown in one piece
CLOSE_SIDE = 160  # side of a close view, input pixels
COMFORTABLE = 64.0  # height of the candidate in its close view
EDGE = 2.0  # input pixels within which a box counts as cut by a tile's inner edge


@dataclass(frozen=True)
class View:
    """A rectangle of the picture, [left, right) x [top, bottom), resampled to (height, width)."""

    left: int
    top: int
    right: int
    bottom: int
    height: int
    width: int
    inner: tuple[bool, bool, bool, bool] = (False, False, False, False)  # left, top, right, bottom: an edge inside the picture

    @property
    def scale(self) -> tuple[float, float]:
        """Picture pixels per input pixel, (x, y)."""
        return (self.right - self.left) / self.width, (self.bottom - self.top) / self.height

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) points from input to picture coordinates, both as areas (a pixel's centre at + 0.5)."""
        return points * self.scale + (self.left, self.top)

    def whole(self, boxes: np.ndarray) -> np.ndarray:
        """(n,) bool: which boxes of (n, 4) picture coordinates are not cut by an inner edge of this view."""
        margin = EDGE * np.array(self.scale)
        free = np.ones(len(boxes), bool)
        limits = (self.left + margin[0], self.top + margin[1], self.right - margin[0], self.bottom - margin[1])
        for side, (inner, limit) in enumerate(zip(self.inner, limits, strict=True)):
            if inner:
                free &= boxes[:, side] > limit if side < 2 else boxes[:, side] < limit
        return free


def plan_views(height: int, width: int, smallest_face: float) -> list[View]:
    """The views of a picture, finest level first; faces from `smallest_face` pixels to the full frame show in one."""
    scale = min(SMALLEST / smallest_face, MAX_ENLARGEMENT)
    views = _level(height, width, scale)
    while max(height, width) * scale > LARGEST:
        scale /= LEVEL_STEP
        views += _level(height, width, scale)
    return views


def _level(height: int, width: int, scale: float) -> list[View]:
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    if rows * columns <= MAX_UNTILED:
        return [View(0, 0, width, height, rows, columns)]
    views = []
    for top, bottom in _cut(rows):
        for left, right in _cut(columns):
            box = [
                round(left / scale),
                round(top / scale),
                min(width, round(right / scale)),
                min(height, round(bottom / scale)),
            ]
            box[2], box[3] = width if right == columns else box[2], height if bottom == rows else box[3]
            inner = (left > 0, top > 0, right < columns, bottom < rows)
            views.append(View(box[0], box[1], box[2], box[3], bottom - top, right - left, inner))
    return views


def _cut(length: int) -> list[tuple[int, int]]:
    """Even intervals of at most TILE that cover [0, length) and overlap by at least TILE_OVERLAP."""
    if length <= TILE:
        return [(0, length)]
    count = -(-(length - TILE_OVERLAP) // (TILE - TILE_OVERLAP))
    starts = [round(index * (length - TILE) / (count - 1)) for index in range(count)]
    return [(start, start + TILE) for start in starts]


def close_view(box: np.ndarray, height: int, width: int) -> View:
    """A square around a candidate in which it is COMFORTABLE pixels high; cut at the picture's edge, its resolution kept."""
    scale = COMFORTABLE / max(box[3] - box[1], box[2] - box[0], 1.0)
    half = CLOSE_SIDE / scale / 2
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left = int(np.clip(np.floor(centre_x - half), 0, width - 1))
    top = int(np.clip(np.floor(centre_y - half), 0, height - 1))
    right = int(np.clip(np.ceil(centre_x + half), left + 1, width))
    bottom = int(np.clip(np.ceil(centre_y + half), top + 1, height))
    rows = min(CLOSE_SIDE, max(1, round((bottom - top) * scale)))
    columns = min(CLOSE_SIDE, max(1, round((right - left) * scale)))
    return View(left, top, right, bottom, rows, columns)

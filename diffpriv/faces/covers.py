"""A drawn head put into its photo: what of it is used, how it is joined, and what fills the rest.

`face`: the drawing's face inside the photo's own outline; hair in front of it stays.
`head`: the drawing's whole head with its hair and ears, on the photo's neck; what the old head leaves bare is filled from the
surroundings.
`square`: as `head`, and the drawing's own surroundings too, out to a soft edge.
Pure: numpy and OpenCV; the only random numbers are the grain's, from the face's seed.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from diffpriv.faces.appearance import measure_appearance
from diffpriv.faces.finish import Finish, match_sharpness, match_tone
from diffpriv.faces.fitting import fit_drawing, warp_drawing
from diffpriv.faces.head_view import HeadView
from diffpriv.faces.long_hair import find_long_hair, goes_on, recolour
from diffpriv.faces.mesh import JAW, OVAL
from diffpriv.faces.multiband import blend_bands
from diffpriv.faces.types import Patch

COVERS = ("head", "face", "square")
REACH = {"face": 1.0, "head": 2.3, "square": 2.3}  # of the rectangle beyond the outline, eye distances
MOST_TONE = 9.0  # levels: the drawing was made for this light; what is left is small
CHIN, NOSE_TIP = 152, 1
RIMS = (0.3, 0.08)  # eye distances around the old head that go with it, above the nose and below
NECK = JAW[6:15]  # of the jaw, the part above the neck
RIM = 0.16  # eye distances inside the outline over which photo and drawing are joined
FRAME = 0.012  # share of the drawing's side at its edge that is not used
NEVER_OPAQUE = 0.9  # weight of what only touches up the photo: a neighbour's own new face outvotes it
FILL_SIDE = 160  # pixels at which the surroundings are continued


@dataclass(frozen=True, eq=False)
class Drawing:
    """pixels: (side, side, 3) uint8 RGB. view: of it."""

    pixels: np.ndarray
    view: HeadView


@dataclass(frozen=True, eq=False)
class _Window:
    """A rectangle of the photo, and what lies in it. over: the drawing laid over it.
    grid: x and y in the drawing of each pixel. unit: an eye distance in pixels."""

    corner: tuple[int, int]
    size: tuple[int, int]
    under: np.ndarray  # (h, w, 3) float32
    over: np.ndarray
    grid: tuple[np.ndarray, np.ndarray]
    unit: float

    def points(self, view: HeadView, numbers: tuple[int, ...]) -> np.ndarray:
        return np.round(view.mesh.points[list(numbers)] - np.array(self.corner)).astype(np.int32)

    def area(self, points: np.ndarray) -> np.ndarray:
        """(h, w) float32: 1 inside a polygon."""
        plane = np.zeros(self.size[::-1], np.uint8)
        cv2.fillPoly(plane, [points], 1)
        return plane.astype(np.float32)

    def side(self, share: float) -> int:
        """A share of the eye distance in whole pixels, at least 1."""
        return max(1, round(share * self.unit))

    def octaves(self, share: float) -> int:
        """Levels whose coarsest is about this share of the eye distance wide."""
        return max(1, round(float(np.log2(max(2.0, share * self.unit)))))


def put_in_place(image: np.ndarray, photo: HeadView, drawing: Drawing, cover: str, finish: Finish | None = None) -> Patch:
    """The patch that replaces a face.

    Args:
        image: (height, width, 3) uint8 RGB, the original picture.
        photo: what `HeadViewer` saw of it.
        drawing: the new head.
        cover: one of COVERS.
        finish: what the new face is given of the photo; None leaves it as it is drawn.
    Raises:
        ValueError: no such cover, or the face lies outside the picture.
    """
    if cover not in COVERS:
        raise ValueError(f"cover is {cover!r}; it is one of {', '.join(COVERS)}")
    window = _window(image, photo, drawing, cover)
    if finish is not None:
        window = replace(window, over=_finished(window, photo, drawing, finish))
    return _cover_face(window, photo, drawing) if cover == "face" else _cover_head(window, photo, drawing, cover == "square")


def _window(image: np.ndarray, photo: HeadView, drawing: Drawing, cover: str) -> _Window:
    outline = OVAL if cover == "face" else JAW
    to_drawing = fit_drawing(photo.mesh, drawing.view.mesh, outline)
    unit = photo.mesh.eye_distance
    points = photo.mesh.points[list(OVAL)]
    height, width = image.shape[:2]
    low = np.maximum(np.floor(points.min(0) - REACH[cover] * unit).astype(int), 0)
    if cover != "face":
        low[1] = np.clip(np.floor(photo.top() - RIMS[0] * unit), 0, low[1]).astype(int)
    high = np.minimum(np.ceil(points.max(0) + REACH[cover] * unit).astype(int) + 1, (width, height))
    if (high - low).min() < 2:
        raise ValueError("the face lies outside the picture")
    corner, size = (int(low[0]), int(low[1])), (int(high[0] - low[0]), int(high[1] - low[1]))
    under = image[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    grid = to_drawing.grid(corner, size)
    over = warp_drawing(drawing.pixels, *grid, to_drawing.scale).astype(np.float32)
    return _Window(corner, size, under, over, grid, unit)


def _finished(window: _Window, photo: HeadView, drawing: Drawing, finish: Finish) -> np.ndarray:
    seen = measure_appearance(drawing.pixels, drawing.view.mesh)
    own = np.array([seen.light, seen.green_red, seen.blue_yellow], np.float32)
    skin = 1 - np.clip(1.5 * _drawn_hair(window, drawing) - 0.25, 0, 1)
    over = match_tone(window.over, skin, own, finish.tone)
    return match_sharpness(over, window.area(window.points(photo, OVAL)) > 0, finish.sharpness)


def _drawn_hair(window: _Window, drawing: Drawing) -> np.ndarray:
    """(h, w) float32: the drawing's hair over the photo."""
    side = drawing.pixels.shape[0]
    hair = drawing.view.in_picture(drawing.view.hair * drawing.view.person, (0, 0), (side, side))
    return cv2.remap(hair, *window.grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _cover_face(window: _Window, photo: HeadView, drawing: Drawing) -> Patch:
    mask = cv2.erode(window.area(window.points(photo, OVAL)), _disc(window.side(0.06)))
    hair = photo.in_picture(_in_front(photo), window.corner, window.size)
    mask = mask * (1 - np.clip(2 * hair - 0.5, 0, 1))
    ring = (cv2.dilate(mask, _disc(window.side(0.12))) > 0.5) & (cv2.erode(mask, _disc(window.side(0.06))) < 0.5)
    over = window.over + _tone(window, ring & (hair < 0.3))
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.7, 0.03 * window.unit))
    made = blend_bands(window.under, over, soft, window.octaves(RIM))
    # Coarse octaves reach far: inside the rim nothing of the original may be left, not even its shading.
    inner = cv2.GaussianBlur(cv2.erode(mask, _disc(window.side(RIM))), (0, 0), max(0.7, 0.3 * RIM * window.unit))
    made = made + np.clip(2 * inner, 0, 1)[..., None] * (over - made)
    # Around the mask the coarse octaves reach into the photo; beyond this the photo is as it was.
    touched = cv2.GaussianBlur(cv2.dilate(mask, _disc(window.side(0.3))), (0, 0), max(0.7, 0.1 * window.unit))
    return _patch(window, made, np.maximum(np.minimum(touched, NEVER_OPAQUE), (soft > 0.5).astype(np.float32)))


def _in_front(photo: HeadView) -> np.ndarray:
    """Hair that hangs over the face, in the square: hair inside the outline that touches hair outside of it."""
    face = photo.face_area()
    hair = ((photo.hair > 0.5) * 1).astype(np.uint8)
    _, pieces = cv2.connectedComponents(hair)
    outside = np.unique(pieces[(hair > 0) & (face < 0.5)])
    return photo.hair * np.isin(pieces, outside[outside > 0])


def _cover_head(window: _Window, photo: HeadView, drawing: Drawing, square: bool) -> Patch:
    unit = window.unit
    head = photo.head_area()
    old = photo.in_picture(head, window.corner, window.size)
    new = _drawn_head(window, drawing)
    old, under, locks = _without_locks(window, photo, drawing, old, new)
    if square:
        new = np.maximum(new, _frame(window, drawing))
    body = photo.in_picture(photo.body_area(head), window.corner, window.size)
    hole = np.minimum(_with_rim(window, photo, old), 1 - np.maximum(body, locks))
    hole = np.maximum(hole, window.area(window.points(photo, OVAL)))
    person = photo.in_picture(photo.person, window.corner, window.size)
    base = _filled(window, under, hole, new, np.maximum(body, locks), person)
    jaw = np.zeros(window.size[::-1], np.uint8)
    cv2.polylines(jaw, [window.points(photo, NECK)], False, 1, window.side(0.16))
    over = _extended(window.over, new, window.side(0.1)) + _tone(window, jaw > 0)
    # Hair ends in its own strands; the neck is joined over all octaves.
    strands = base + new[..., None] * (over - base)
    joined = blend_bands(base, over, cv2.GaussianBlur(new, (0, 0), max(0.7, 0.03 * unit)), window.octaves(0.25))
    neck = cv2.GaussianBlur(cv2.dilate(jaw.astype(np.float32), _disc(window.side(0.3))), (0, 0), max(0.7, 0.12 * unit))
    # Beside the neck is background: skin that the octaves carry there would be a smear.
    skin = cv2.GaussianBlur((np.maximum(body, new) > 0.5).astype(np.float32), (0, 0), max(0.7, 0.03 * unit))
    neck = neck * np.clip(2 * skin - 1, 0, 1)
    made = strands + neck[..., None] * (joined - strands)
    opaque = (np.maximum(np.maximum(new, hole), locks) > 0.5).astype(np.float32)
    touched = np.maximum(cv2.dilate(np.maximum(np.maximum(hole, new), locks), _disc(window.side(0.1))), 0.9 * neck)
    touched = cv2.GaussianBlur(touched, (0, 0), max(0.7, 0.06 * unit))
    return _patch(window, made, np.maximum(np.minimum(touched, NEVER_OPAQUE), opaque))


def _with_rim(window: _Window, photo: HeadView, old: np.ndarray) -> np.ndarray:
    """The old head and what surrounds it: strands of hair lie beyond its map above, and little beside the jaw."""
    wide, narrow = (cv2.dilate(old, _disc(window.side(share))) for share in RIMS)
    nose = float((photo.mesh.points[NOSE_TIP] - np.array(window.corner))[1])
    rows = np.arange(window.size[1], dtype=np.float32)[:, None]
    return np.where(rows < nose, wide, narrow)


def _without_locks(
    window: _Window, photo: HeadView, drawing: Drawing, old: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What has to go, the photo under the new head, and the locks that stay: recoloured if the new hair is long as well."""
    chin = float((photo.mesh.points[CHIN] - np.array(window.corner))[1])
    new_hair = _drawn_hair(window, drawing) * new
    long = find_long_hair(photo.in_picture(photo.hair, window.corner, window.size), old, chin, window.unit)
    if not goes_on(long, new_hair):
        return old, window.under, np.zeros_like(old)
    under = recolour(window.under, long.locks, window.over, new_hair)
    return old * (1 - long.locks), under, long.locks


def _drawn_head(window: _Window, drawing: Drawing) -> np.ndarray:
    """(h, w) float32 alpha of the drawing's head: its map, made to follow the drawing's own edges (He et al. 2013, guided
    filter)."""
    side = drawing.pixels.shape[0]
    mask = drawing.view.in_picture(drawing.view.own_head_area(), (0, 0), (side, side))
    grey = cv2.cvtColor(drawing.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    alpha = np.clip(1.25 * _guided(grey, mask, max(2, side // 48)) - 0.2, 0, 1)
    margin = max(1, round(FRAME * side))
    inside = np.zeros((side, side), np.float32)
    inside[margin:-margin, margin:-margin] = 1
    fade = cv2.blur(inside, (2 * margin + 1, 2 * margin + 1))
    fade = fade * _rounded(side)
    return cv2.remap(alpha * fade, *window.grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _rounded(side: int) -> np.ndarray:
    """(side, side) float32: what the drawing's frame cuts, hair above and long hair below, ends in an arc instead of a line."""
    rows, columns = np.arange(side, dtype=np.float32)[:, None] / side, np.arange(side, dtype=np.float32)[None] / side
    aside = np.abs(columns - 0.5) / 0.5
    lowest = 0.985 - 0.1 * aside**2
    highest = FRAME + 0.35 * np.clip(aside - 0.12, 0, None) ** 2.2
    return np.clip((lowest - rows) / 0.06, 0, 1) * np.clip((rows - highest) / 0.02 + 0.5, 0, 1)


def _frame(window: _Window, drawing: Drawing) -> np.ndarray:
    side = drawing.pixels.shape[0]
    inside = np.zeros((side, side), np.float32)
    margin = side // 10
    inside[margin:-margin, margin:-margin] = 1
    return cv2.remap(cv2.blur(inside, (margin, margin)), *window.grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _guided(guide: np.ndarray, plane: np.ndarray, radius: int, smoothness: float = 1e-3) -> np.ndarray:
    size = (2 * radius + 1, 2 * radius + 1)
    mean_guide, mean_plane = cv2.blur(guide, size), cv2.blur(plane, size)
    covariance = cv2.blur(guide * plane, size) - mean_guide * mean_plane
    slope = covariance / (cv2.blur(guide * guide, size) - mean_guide**2 + smoothness)
    return cv2.blur(slope, size) * guide + cv2.blur(mean_plane - slope * mean_guide, size)


def _extended(over: np.ndarray, alpha: np.ndarray, reach: int) -> np.ndarray:
    """The drawing with its head's colours carried outwards, so that half-covered pixels bring no background of the
    drawing's."""
    sure = (alpha > 0.9).astype(np.float32)
    weight = cv2.GaussianBlur(sure, (0, 0), max(0.8, reach))
    outward = cv2.GaussianBlur(over * sure[..., None], (0, 0), max(0.8, reach)) / np.maximum(weight, 1e-4)[..., None]
    share = np.clip((0.9 - alpha) / 0.5, 0, 1) * (weight > 1e-3)
    return over + share[..., None] * (outward - over)


def _filled(
    window: _Window, under: np.ndarray, old: np.ndarray, new: np.ndarray, body: np.ndarray, person: np.ndarray
) -> np.ndarray:
    """The photo with its old head gone: where the new one does not cover it, what lies behind goes on.

    Args:
        under: (h, w, 3) float32 levels, the photo.
        old, new, body: (h, w) float32, what goes, the new head over it, and what of the person stays.
        person: (h, w) float32, where the person was; beyond it no body goes on.
    """
    if not (old * (1 - new)).max() > 0.05:
        return under
    height, width = old.shape
    factor = min(1.0, FILL_SIDE / max(height, width))
    planes = (under, old, body, person)
    small, gone, own, was = (cv2.resize(one, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for one in planes)
    left = (gone <= 0.02).astype(np.float32)
    behind, before = left * (own <= 0.02), left * (own > 0.98)
    # Neck and background each go on by themselves, and so does the line between them.
    share = np.clip(6 * (_continued(own[..., None], left) - 0.5) + 0.5, 0, 1) * np.clip(2 * was - 0.5, 0, 1)[..., None]
    parts = [_continued(small, known) if known.any() else small for known in (behind, before)]
    large = cv2.resize(parts[0] + share * (parts[1] - parts[0]), (width, height), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(np.clip(old, 0, 1), (0, 0), max(0.7, 0.04 * window.unit))[..., None]
    grain = under - cv2.GaussianBlur(under, (0, 0), 1.2)
    # The photo's own noise, from beside: never that of the head that goes.
    grain = np.roll(np.clip(grain, -6, 6) * (old <= 0)[..., None], window.side(1.5), 1) * 0.7
    return under + soft * (large + grain - under)


def _continued(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A picture whose unknown pixels are the known ones' averages, the nearer the finer (pull-push: Gortler et al. 1996).

    Args:
        picture: (h, w, channels) float32. known: (h, w) float32 in {0, 1}.
    """
    if min(known.shape) < 4 or known.all():
        total = max(float(known.sum()), 1.0)
        mean = (picture * known[..., None]).sum((0, 1)) / total
        return (known[..., None] * picture + (1 - known[..., None]) * mean).astype(np.float32)
    size = known.shape[1::-1]
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    weight = cv2.resize(cv2.GaussianBlur(known, (5, 5), 0), half, interpolation=cv2.INTER_LINEAR)
    sums = cv2.resize(cv2.GaussianBlur(picture * known[..., None], (5, 5), 0), half, interpolation=cv2.INTER_LINEAR)
    sums = sums.reshape(*weight.shape, -1)
    there = weight > 1e-3
    coarse = np.where(there[..., None], sums / np.maximum(weight, 1e-3)[..., None], 0).astype(np.float32)
    filled = _continued(coarse, there.astype(np.float32))
    larger = cv2.resize(filled, size, interpolation=cv2.INTER_LINEAR).reshape(picture.shape)
    return (known[..., None] * picture + (1 - known[..., None]) * larger).astype(np.float32)


def _tone(window: _Window, where: np.ndarray) -> np.ndarray:
    """(3,) levels to add to the drawing: how photo and drawing differ where they meet, within bounds."""
    if where.sum() < 24:
        return np.zeros(3, np.float32)
    difference = np.median((window.under - window.over)[where], 0)
    return np.clip(difference, -MOST_TONE, MOST_TONE).astype(np.float32)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _patch(window: _Window, made: np.ndarray, alpha: np.ndarray) -> Patch:
    """Cut to where alpha is above zero."""
    alpha = np.where(alpha < 1 / 255, 0, np.clip(alpha, 0, 1)).astype(np.float32)
    rows, columns = np.nonzero(alpha.max(1) > 0)[0], np.nonzero(alpha.max(0) > 0)[0]
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    pixels = np.rint(np.clip(made[y0:y1, x0:x1], 0, 255)).astype(np.uint8)
    return Patch(int(window.corner[0] + x0), int(window.corner[1] + y0), pixels, np.ascontiguousarray(alpha[y0:y1, x0:x1]))

"""How well a drawn head can stand in a photo, judged before it is put there.

The generator draws hats, heads that its frame cuts and backgrounds that the person map takes for hair, and it turns a head
only so far. Each is measured on the maps of `head_view`; of several drawings the one with the smallest fault is used.
Pure: numpy and OpenCV, no random numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from diffpriv.faces.covers import FRAME, Drawing
from diffpriv.faces.head_view import SIDE, HeadView
from diffpriv.faces.mesh import MOUTH_CORNERS, OVAL, sample_square

# What a fault may measure before a drawing is no good.
MOST_FOREIGN, MOST_CUT, MOST_TURN, MOST_RAGGED = 0.3, 0.3, 0.12, 0.03
MOST_YAW = 0.24  # eye distances that a photo's nose may point aside; drawings are turned no further
SKIN_TONE, SKIN_SHADE = 9.0, 25.0  # CIELAB: how far from the face's median skin may be, in a and b, and how much darker
HAIR = 0.4


@dataclass(frozen=True)
class HeadFit:
    """What speaks against one drawing in one photo.

    Attributes:
        foreign: share of the head above the face that is neither hair nor skin: a hat, or background.
        cut: share of the drawing's upper edge that lies in the head.
        turn: eye distances between where its nose and the photo's point.
        ragged: share of the head's convex hull, above the mouth, that is not head: heads are round.
    """

    foreign: float
    cut: float
    turn: float
    ragged: float

    @property
    def fault(self) -> float:
        """The largest of the four as a share of what is allowed; up to 1 the drawing will do."""
        return max(self.foreign / MOST_FOREIGN, self.cut / MOST_CUT, self.turn / MOST_TURN, self.ragged / MOST_RAGGED)


def is_turned_away(photo: HeadView) -> bool:
    """Whether a photo's head is turned further than heads are drawn."""
    return abs(photo.nose_aside()) > MOST_YAW


def rate_drawing(photo: HeadView, drawing: Drawing) -> HeadFit:
    """What speaks against this drawing in this photo."""
    view = drawing.view
    head = view.own_head_area()
    return HeadFit(
        _foreign(drawing, head), _cut(drawing, head), abs(view.nose_aside() - photo.nose_aside()), _ragged(view, head)
    )


def _foreign(drawing: Drawing, head: np.ndarray) -> float:
    view = drawing.view
    square = sample_square(drawing.pixels, view.matrix, SIDE)
    lab = cv2.cvtColor(square.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    face = view.face_area() > 0
    skin = np.median(lab[face], 0)
    alike = (np.abs(lab - skin)[..., 1:].max(2) < SKIN_TONE) & (lab[..., 0] > skin[0] - SKIN_SHADE)
    above = np.arange(SIDE)[:, None] < view.polygon(OVAL)[:, 1].min()
    crown = (head > 0) & ~face & above
    return float(((view.hair < HAIR) & ~alike)[crown].mean()) if crown.any() else 0.0


def _cut(drawing: Drawing, head: np.ndarray) -> float:
    side = drawing.pixels.shape[0]
    edge = drawing.view.in_picture(head, (0, max(1, round(FRAME * side))), (side, 1))
    return float((edge > 0.5).mean())


def _ragged(view: HeadView, head: np.ndarray) -> float:
    upper = head.astype(np.uint8)
    upper[max(0, round(float(view.polygon(MOUTH_CORNERS)[:, 1].mean()))) :] = 0
    outlines, _ = cv2.findContours(upper, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return 1.0
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines)))
    return float(max(0.0, 1 - upper.sum() / max(hull, 1.0)))

"""What every face transformation takes and gives, and the solid fill that stands in when one fails.

A transformation is a pure function of (picture, face, seed, settings): it reads no clock, no global generator and no file after
it was loaded, and one face's result never depends on which others share the call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from diffpriv.faces.types import Face, Patch

SEED_SIZE = 32
FILL_MARGIN = 0.3  # of the box's larger side, added on every side: hair line, ears and chin lie outside detectors' boxes
FILL_VALUE = 128  # one constant for everybody: a mean colour would tell skin tone


@dataclass(frozen=True, eq=False)
class FaceRequest:
    """One face to transform.

    Attributes:
        image: the whole picture, (height, width, 3) uint8 RGB; never written to.
        face: where the face is.
        seed: 32 bytes derived from the face key. Secret: not in the repr.
        identity_seed: 32 secret bytes that are the same for all photos of one person, who then get one synthetic identity; None
            gives the face one of its own.
    """

    image: np.ndarray = field(repr=False)
    face: Face = field(repr=False)
    seed: bytes = field(repr=False)
    identity_seed: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8 or not self.image.size:
            raise ValueError(f"the picture must be (height, width, 3) uint8, not {self.image.shape} {self.image.dtype}")
        if len(self.seed) != SEED_SIZE:
            raise ValueError(f"a seed has {SEED_SIZE} bytes, not {len(self.seed)}")
        if self.identity_seed is not None and len(self.identity_seed) != SEED_SIZE:
            raise ValueError(f"an identity seed has {SEED_SIZE} bytes, not {len(self.identity_seed)}")


@dataclass(frozen=True, eq=False)
class FaceResult:
    """What became of one face.

    Attributes:
        status: "protected", or "filled" when the transformation could not keep its promise and a solid fill stands in.
        reason: why it was filled, or what was done instead of what was asked; empty if it was protected as asked.
        attempts: how many times the transformation was tried.
        similarity: to the original under the checking recogniser, None where it was not measured.
        patch: what to blend into the picture.
        payload: the recovery tier's material, to be sealed; b"" means that nothing can be recovered and no key needs keeping.
    """

    status: Literal["protected", "filled"]
    reason: str
    attempts: int
    similarity: float | None
    patch: Patch
    payload: bytes = field(repr=False)


class FaceTransform(Protocol):
    """Turns faces into patches."""

    @property
    def identity(self) -> str:
        """Name, version and weight digest: equal identities give equal bytes on one device type and dtype."""
        ...

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        """One result per request, in order, whatever the grouping. May raise for all of them; callers then retry one by one."""
        ...


def fill_patch(request: FaceRequest) -> Patch:
    """A solid neutral rectangle over the face: its box and landmarks with a margin, cut at the picture's edge.

    Needs no model and no plausible landmarks, so it works wherever a transformation failed. At least one pixel, always opaque.
    """
    height, width = request.image.shape[:2]
    box, points = request.face.box, request.face.landmarks
    margin = FILL_MARGIN * max(request.face.width, request.face.height)
    left = min(box[0], points[:, 0].min()) - margin
    top = min(box[1], points[:, 1].min()) - margin
    right = max(box[2], points[:, 0].max()) + margin
    bottom = max(box[3], points[:, 1].max()) + margin
    x0 = int(np.clip(np.floor(left), 0, width - 1))
    y0 = int(np.clip(np.floor(top), 0, height - 1))
    x1 = int(np.clip(np.ceil(right), x0 + 1, width))
    y1 = int(np.clip(np.ceil(bottom), y0 + 1, height))
    shape = (y1 - y0, x1 - x0)
    return Patch(x0, y0, np.full((*shape, 3), FILL_VALUE, np.uint8), np.ones(shape, np.float32))


def fill_face(
    request: FaceRequest, reason: str, *, attempts: int = 0, similarity: float | None = None, payload: bytes = b""
) -> FaceResult:
    """The result for a face that could not be transformed: a solid fill, and the reason. Never the original.

    Args:
        reason: for the report; it must not hold anything that identifies the person.
        payload: recovery material, where the tier can still give it (`exact` can); default nothing.
    """
    return FaceResult("filled", reason, attempts, similarity, fill_patch(request), payload)

"""One face on its way through the attempts, and what makes new faces for it: the seam between keys, drawing and checking."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from diffpriv.faces.types import Patch
from diffpriv.transforms.base import FaceRequest, FaceResult
from diffpriv.transforms.output_check import Reference


@dataclass(eq=False)
class FaceRun:
    """One face on its way through the attempts.

    Attributes:
        matrix: picture to 128 px canonical crop.
        crop: (3, size, size).
        targets: the original's embeddings, under the model's own recogniser and its guides.
        context: what the maker keeps of a face between attempts.
        best: the result so far.
        shortfall: of the best: how far its landmarks moved, and how much nearer to the original it is than wanted.
        note: what the maker did instead of what was asked, for the report; empty if nothing.
        pushes: attempts so far that were over the limit.
    """

    request: FaceRequest
    matrix: np.ndarray
    crop: torch.Tensor
    key_e: torch.Tensor
    targets: Sequence[torch.Tensor]
    reference: Reference
    payload: bytes
    context: Any = None
    best: FaceResult | None = None
    shortfall: float = float("inf")
    note: str = ""
    pushes: int = 0
    settled: bool = False
    similarity: float = 0.0


class FaceMaker(Protocol):
    """Makes patches for faces; pure in (faces, attempt)."""

    def make(self, faces: Sequence[FaceRun], batch: int, attempt: int) -> list[list[Patch]]:
        """Candidates a face, in the order in which they are to be tried.

        Args:
            batch: the shape that networks' batches are padded to.
            attempt: 0, 1, …
        """
        ...


def padded(items: list, size: int) -> list:
    """The items, the last repeated until there are `size`."""
    return items + [items[-1]] * (size - len(items))

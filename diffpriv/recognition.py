"""What every face recogniser promises, and what those promise that guidance can push against."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from diffpriv.errors import ModelError

if TYPE_CHECKING:
    import torch


class Recognizer(Protocol):
    """Embeds aligned faces; the cosine of two embeddings is the similarity of two faces."""

    @property
    def identity(self) -> str:
        """Name and weight digest: equal identities give equal embeddings on one device type."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """(n, 128, 128, 3) uint8 RGB canonical crops -> (n, dim) float32 of unit length, independent of grouping.

        Raises:
            DetectorError: the recogniser failed. Never a made-up embedding.
        """
        ...

    def threshold(self, far: float) -> float:
        """Similarity from which two faces count as one person's, at a false-accept rate of `far`.

        Raises:
            ModelError: nobody measured it for this recogniser.
        """
        ...


@runtime_checkable
class DifferentiableRecognizer(Protocol):
    """A recogniser as a function of tensors that carries gradients: a member of guidance's ensemble."""

    def embed_canonical(self, crop: "torch.Tensor") -> "torch.Tensor":
        """(batch, 3, size, size) canonical crops in [-1, 1] -> (batch, dim) of unit length."""
        ...

    def similarity(self, first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
        """1 - (1 - cosine) / spread of (..., dim) embeddings, spread the mean of 1 - cosine over strangers: 1 for one and the
        same picture, 0 on average for strangers. So recognisers of unlike spreads push alike.
        """
        ...

    def to(self, device: "torch.device") -> object:
        """Move the weights."""
        ...


def measured_threshold(table: Mapping[str, float], far: float, advice: str) -> float:
    """The entry of a table {"0.001": 0.31} at a false-accept rate.

    Raises:
        ModelError: there is none, with the advice.
    """
    for rate, similarity in table.items():
        if math.isclose(float(rate), far, rel_tol=1e-6):
            return float(similarity)
    raise ModelError(f"No threshold at a false-accept rate of {far:g} is known for this recogniser.", advice=advice)

"""What every face recogniser promises."""

from typing import Protocol

import numpy as np


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

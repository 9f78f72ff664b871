"""A learned linear map from the embedding of an output to that of its original (ridge regression, in closed form).

The cheapest adaptive attacker, and a strong one where data is scarce: any identity that the transformation merely shifts or
mixes in the recogniser's space comes back.
"""

import numpy as np

from diffpriv.attacks.pairs import Embed, FacePairs, choose
from diffpriv.metrics.verification import unit

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


class EmbeddingMap:
    """score = cosine(W e(output) + b, e(original)), both sides centred on the attacker's own means."""

    def __init__(self, name: str, embed: Embed, before: np.ndarray, after: np.ndarray, strength: float) -> None:
        self.name = name
        self._embed = embed
        self._output_mean, self._original_mean = after.mean(0), before.mean(0)
        x, y = after - self._output_mean, before - self._original_mean
        self._weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)

    def scores(self, outputs: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        guessed = (self._embed(outputs) - self._output_mean) @ self._weights
        return unit(guessed) @ unit(self._embed(gallery) - self._original_mean).T


def fit_embedding_map(name: str, embed: Embed, training: FacePairs, choosing: FacePairs) -> EmbeddingMap:
    """The map whose ridge strength does best on the set-aside people."""
    before, after = (embed(crops).astype(np.float64) for crops in (training.originals, training.outputs))
    maps = [EmbeddingMap(name, embed, before, after, strength) for strength in STRENGTHS]
    return choose(maps, choosing)

"""How far two sets of feature vectors lie apart as distributions: Fréchet distance and kernel distance.

Sources: Heusel et al. 2017 (Fréchet distance between two normal distributions, there of Inception features); Bińkowski et al.
2018 (unbiased squared maximum mean discrepancy with the cubic polynomial kernel). Both say nothing without a floor: the same
distance between two halves of one real set, of the same sizes, since the Fréchet distance is biased upwards for small sets.
Pure numpy; features in float64.
"""

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) of the sets' means m and covariances S (divided by n - 1).

    Args:
        first, second: (n, dim) and (m, dim), n, m >= 2; n < dim is allowed, and then the bias is large.
    Raises:
        ValueError: too few vectors, or unequal dims.
    """
    first, second = _checked(first, second)
    shift = first.mean(0) - second.mean(0)
    one, two = (_root(part) for part in (first, second))
    # With S1 = A'A and S2 = B'B the non-zero eigenvalues of S1 S2 are those of (A B')(A B')': so tr (S1 S2)^½ is the sum of the
    # singular values of A B'. No square root of a singular matrix is needed.
    cross = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    return float(shift @ shift + (one**2).sum() + (two**2).sum() - 2 * cross)


def kernel_distance(first: np.ndarray, second: np.ndarray, *, gamma: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with k(x, y) = (gamma x·y + 1)³; about 0 (or below) for equal distributions.

    Args:
        first, second: (n, dim) and (m, dim), n, m >= 2.
        gamma: default 1 / dim, as published. Give 1 for vectors of unit length, where x·y is already a cosine.
    Raises:
        ValueError: too few vectors, or unequal dims.
    """
    first, second = _checked(first, second)
    gamma = 1 / first.shape[1] if gamma is None else gamma

    def kernel(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return (gamma * (one @ two.T) + 1) ** 3

    def within(part: np.ndarray) -> float:
        values = kernel(part, part)
        return float((values.sum() - np.trace(values)) / (len(part) * (len(part) - 1)))  # a vector with itself is left out

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())


def _checked(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = (np.asarray(part, np.float64) for part in (first, second))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(f"two sets of at least two vectors of one length are needed, not {first.shape} and {second.shape}")
    return first, second


def _root(vectors: np.ndarray) -> np.ndarray:
    """A with A'A = the covariance; at most dim rows."""
    centred = (vectors - vectors.mean(0)) / np.sqrt(len(vectors) - 1)
    return centred if len(centred) <= centred.shape[1] else np.asarray(np.linalg.qr(centred, mode="r"))

"""Distances between distributions: equal sets are at zero, and known normal distributions at the published formula."""

import numpy as np
import pytest

from diffpriv.metrics.distribution import frechet_distance, kernel_distance


def normal(count: int, dim: int, seed: int, mean: float = 0.0, deviation: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, (count, dim))


@pytest.mark.parametrize("count", [5, 500])  # fewer vectors than dimensions, and more
def test_a_set_is_at_no_distance_from_itself_and_a_shift_adds_its_square(count):
    vectors = normal(count, 20, 1)
    assert frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(vectors, vectors + 0.5) == pytest.approx(20 * 0.25, rel=1e-9)


def test_frechet_distance_of_two_widths_is_the_sum_of_squared_differences_of_deviations():
    vectors = normal(400, 8, 2)
    widths = np.arange(1.0, 9.0)
    centred = vectors - vectors.mean(0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(centred.T @ centred / 399)).T  # covariance exactly one
    assert frechet_distance(white, white * widths) == pytest.approx(((widths - 1) ** 2).sum(), rel=1e-9)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    from scipy.linalg import sqrtm

    first, second = normal(60, 6, 3) @ normal(6, 6, 4), normal(90, 6, 5, mean=0.3)
    one, two = np.cov(first.T), np.cov(second.T)
    shift = first.mean(0) - second.mean(0)
    expected = shift @ shift + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)


def test_kernel_distance_is_the_published_sum_over_pairs():
    first, second = normal(4, 3, 6), normal(5, 3, 7, mean=1)

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    same_first = np.mean([k(x, y) for i, x in enumerate(first) for j, y in enumerate(first) if i != j])
    same_second = np.mean([k(x, y) for i, x in enumerate(second) for j, y in enumerate(second) if i != j])
    between = np.mean([k(x, y) for x in first for y in second])
    assert kernel_distance(first, second) == pytest.approx(same_first + same_second - 2 * between, rel=1e-12)


def test_kernel_distance_has_no_bias_for_small_sets_and_sees_a_shift():
    equal = [kernel_distance(normal(20, 10, 2 * seed), normal(30, 10, 2 * seed + 1)) for seed in range(200)]
    assert abs(np.mean(equal)) < 3 * np.std(equal) / np.sqrt(len(equal))
    assert kernel_distance(normal(200, 10, 1), normal(200, 10, 2, mean=1.0)) > 5 * np.std(equal)


def test_sets_that_cannot_be_compared_are_refused():
    for measure in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="two vectors"):
            measure(normal(1, 4, 1), normal(9, 4, 2))
        with pytest.raises(ValueError, match="one length"):
            measure(normal(9, 4, 1), normal(9, 5, 2))

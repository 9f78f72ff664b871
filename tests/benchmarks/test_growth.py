"""What the growth benchmark makes of the points that it saw."""

import pytest

from benchmarks.growth import slopes, stretches


def test_a_further_sample_costs_the_same_however_long_starting_took() -> None:
    points = [[samples, 30.0 + 0.02 * samples] for samples in range(250, 20_250, 250)]
    found = slopes(points, stretches([1000, 2000, 20_000]))
    assert list(found) == ["1000 to 2000", "2000 to 11000", "11000 to 20000"]
    assert list(found.values()) == pytest.approx([0.02] * 3)


def test_a_cost_that_grows_shows() -> None:
    points = [[samples, 30.0 + 0.02 * samples + 1e-6 * samples**2] for samples in range(250, 20_250, 250)]
    found = list(slopes(points, stretches([1000, 2000, 20_000])).values())
    assert found == pytest.approx([0.023, 0.033, 0.051], rel=0.01)

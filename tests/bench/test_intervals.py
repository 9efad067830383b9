"""Confidence intervals of a median."""

from __future__ import annotations

import numpy as np
import pytest

from bench.intervals import median_interval


@pytest.mark.parametrize(
    ("count", "left_out", "confidence"),
    [(1, 0, 0.0), (5, 0, 0.9375), (7, 0, 0.984375), (9, 1, 0.9609375), (15, 3, 0.96484375), (25, 7, 0.9567)],
)
def test_intervals_agree_with_tables(count: int, left_out: int, confidence: float) -> None:
    """The interval leaves out as many of the smallest and largest values as tables of the binomial allow."""
    interval = median_interval([float(value) for value in np.random.default_rng(1).permutation(count)])
    assert (interval.low, interval.high) == (left_out, count - 1 - left_out)
    assert interval.confidence == pytest.approx(confidence, abs=1e-4)


def test_one_disturbed_value_changes_nothing() -> None:
    """One disturbed measurement out of nine does not move the interval."""
    calm = [0.98, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01, 1.02, 1.03]
    disturbed = [0.1, *calm[1:]]
    assert median_interval(disturbed) == median_interval(calm)


def test_intervals_contain_the_median_as_often_as_they_say() -> None:
    """Of a thousand intervals of skewed values at 95 %, at least 93 % contain the true median."""
    samples = np.random.default_rng(7).lognormal(0, 1, (1000, 9))  # their median is 1
    intervals = [median_interval(sample) for sample in samples.tolist()]
    assert sum(interval.low <= 1 <= interval.high for interval in intervals) >= 930


def test_no_values_have_no_interval() -> None:
    """Without values, there is no median: the function raises ValueError."""
    with pytest.raises(ValueError, match="at least one"):
        median_interval([])

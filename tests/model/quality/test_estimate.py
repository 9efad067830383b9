from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.quality.estimate import ConfidenceSums, estimate_accuracy
from model.quality.intervals import Interval, Z


def sum_up(confidence: NDArray[np.float64]) -> ConfidenceSums:
    return ConfidenceSums(len(confidence), float(confidence.sum()), float((confidence * (1 - confidence)).sum()))


def test_mean_and_width_are_those_of_the_exact_distribution() -> None:
    """The number of correct predictions has the mean and variance of its distribution, computed by convolution."""
    confidence = np.array([0.99, 0.9, 0.85, 0.7, 0.7, 0.6, 0.55, 0.97])
    distribution = np.array([1.0])
    for p in confidence:
        distribution = np.convolve(distribution, [1 - p, p])
    counts = np.arange(len(distribution))
    mean = (counts * distribution).sum()
    deviation = np.sqrt(((counts - mean) ** 2 * distribution).sum())
    estimate = estimate_accuracy(sum_up(confidence))
    assert estimate is not None
    assert estimate.value == pytest.approx(mean / 8)
    assert estimate.value - estimate.lower == pytest.approx(Z * deviation / 8)


def test_bounds_are_shares() -> None:
    """The bounds stay in 0..1, and an estimate from certain predictions is exact."""
    estimate = estimate_accuracy(ConfidenceSums(1, 0.95, 0.0475))
    assert estimate is not None
    assert (estimate.lower, estimate.upper) == pytest.approx((0.523, 1.0), abs=1e-3)
    assert estimate_accuracy(ConfidenceSums(3, 3.0, 0.0)) == Interval(1.0, 1.0, 1.0)


def test_no_predictions_give_no_estimate() -> None:
    """Without predictions, the estimate is None."""
    assert estimate_accuracy(ConfidenceSums()) is None


def test_sums_can_be_added() -> None:
    """The sums of two parts add up to the sums of the whole."""
    confidence = np.random.default_rng(2).beta(8, 1, 100)
    parts = sum_up(confidence[:30]) + sum_up(confidence[30:])
    whole = sum_up(confidence)
    assert (parts.n, parts.confidence, parts.variance) == pytest.approx((whole.n, whole.confidence, whole.variance))


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_interval_covers_the_realised_accuracy(n: int) -> None:
    """For calibrated predictions, the interval contains the accuracy in 93 to 97 % of 4,000 simulated runs."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(4000):
        confidence = generator.beta(6, 1, n)
        accuracy = float((generator.random(n) < confidence).mean())
        estimate = estimate_accuracy(sum_up(confidence))
        assert estimate is not None
        covered += estimate.lower <= accuracy <= estimate.upper
    assert 0.93 <= covered / 4000 <= 0.97

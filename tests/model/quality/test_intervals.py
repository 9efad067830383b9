from __future__ import annotations

import numpy as np
import pytest

from model.quality.intervals import find_wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (9, 10, (0.5958, 0.9821)),
        (10, 10, (0.7225, 1.0)),
    ],
)
def test_interval_matches_published_values(successes: int, n: int, interval: tuple[float, float]) -> None:
    """The first four rows are those of Newcombe, "Two-sided confidence intervals for the single proportion" (1998)."""
    found = find_wilson_interval(successes / n, n)
    assert found.value == successes / n
    assert (found.lower, found.upper) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [200, 1000])
def test_interval_covers_the_accuracy(accuracy: float, n: int) -> None:
    """In 93 to 97 % of 20,000 simulated samples, the interval contains the accuracy of the simulation."""
    correct, samples = np.unique(np.random.default_rng(1).binomial(n, accuracy, 20_000), return_counts=True)
    intervals = [find_wilson_interval(k / n, n) for k in correct]
    covered = [interval.lower <= accuracy <= interval.upper for interval in intervals]
    assert 0.93 <= samples[covered].sum() / samples.sum() <= 0.97

"""Detection of changes in bounded means, checked against a plain loop and by exact enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from model.sequential.changes import STAKE_SHARES, average_wealth, compute_growth, follow_wealth

BOUNDS = np.array([0.1, 0.6])
NOTHING = np.zeros((len(BOUNDS), len(STAKE_SHARES)))


@pytest.fixture
def values() -> NDArray[np.float64]:
    """Observations for two tests, near their bounds, with a few missing ones."""
    generator = np.random.default_rng(7)
    drawn = generator.random((60, 2))
    drawn[:, 0] = drawn[:, 0] < 0.12
    drawn[generator.random((60, 2)) < 0.1] = np.nan
    return drawn


def test_wealth_follows_a_plain_loop(values: NDArray[np.float64]) -> None:
    """Each observation multiplies the wealth by its factor; a wealth below 1 is reset to 1 before."""
    growth = compute_growth(values, BOUNDS)
    paths = follow_wealth(NOTHING, growth)
    for test, stake in itertools.product(range(2), range(len(STAKE_SHARES))):
        wealth, start = 1.0, 0
        for index, value in enumerate(values[:, test]):
            if wealth < 1:
                wealth, start = 1.0, index
            if not math.isnan(value):
                wealth *= 1 + STAKE_SHARES[stake] * (value - BOUNDS[test]) / BOUNDS[test]
            assert paths.wealth[index, test, stake] == pytest.approx(math.log(wealth), abs=1e-9)
            assert start <= paths.find_starts(index)[test, stake] + 1


def test_wealth_continues_where_it_ended(values: NDArray[np.float64]) -> None:
    """Observations in two parts give the same wealth as all at once; a start in the first part is reported as -1."""
    growth = compute_growth(np.nan_to_num(values, nan=0.5), BOUNDS)
    whole, first = follow_wealth(NOTHING, growth), follow_wealth(NOTHING, growth[:20])
    second = follow_wealth(first.wealth[-1], growth[20:])
    assert second.wealth == pytest.approx(whole.wealth[20:], abs=1e-9)
    earlier = whole.find_starts(25) < 20
    assert ((second.find_starts(5) == -1) == earlier).all()


def test_a_change_is_dated() -> None:
    """When the mean rises, the wealth starts at the first observation after the rise."""
    values = np.concatenate([np.full((300, 1), 0.2), np.full((50, 1), 0.9)])
    paths = follow_wealth(np.zeros((1, 3)), compute_growth(values, np.array([0.6])))
    assert (paths.find_starts(349) == 300).all()


@pytest.mark.parametrize("mean", [0.1, 0.05])
@pytest.mark.parametrize("n", [1, 4, 9])
def test_expected_wealth_is_at_most_the_number_of_observations(mean: float, n: int) -> None:
    """While the mean is at most the bound, the average wealth is expected to be at most n after n observations.

    So it reaches a threshold c within n observations with a probability of at most n / c.
    """
    expected = 0.0
    for outcomes in itertools.product((0.0, 1.0), repeat=n):
        growth = compute_growth(np.array(outcomes)[:, np.newaxis], BOUNDS[:1])
        final = average_wealth(follow_wealth(NOTHING[:1], growth).wealth)[-1]
        expected += math.prod(mean if each else 1 - mean for each in outcomes) * math.exp(final)
    assert expected <= n + 1e-9


def test_the_average_is_that_of_all_tests_and_stakes() -> None:
    """The average is over all tests and stakes, and its logarithm does not overflow for a large wealth."""
    wealth = np.log(np.array([[[1.0, 3.0], [5.0, 7.0]]]))
    assert average_wealth(wealth) == pytest.approx([math.log(4)])
    assert average_wealth(wealth + 5000) == pytest.approx([math.log(4) + 5000])

"""Detect a change in the means of bounded observations at any time, with e-detectors (ADR 0060).

Each test bets against "the mean is at most the bound", as `bounded_mean` does: a stake multiplies the wealth by
1 + λ (x - bound). A change may follow thousands of normal observations, during which a bet only loses. So the wealth
of each stake is reset to 1 whenever it is below 1 (Page's CUSUM). The average wealth of all stakes of all tests of a
group is compared with a threshold.

As long as each observation has a conditional mean of at most its bound, the wealth of a stake is at most the sum of
martingales of which one starts at each observation. So the average minus the number of observations is a
supermartingale, and by Ville's inequality the probability that the average reaches a threshold within n observations
is at most n / threshold, no matter how often it is checked.

Sources: Page, "Continuous inspection schemes", Biometrika 41, 1954; Shin, Ramdas and Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection", NEJSDS 2(2), 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STAKE_SHARES = (0.8, 0.3, 0.1)
"""Stakes as shares of the largest one that cannot make the wealth negative."""


class Paths(NamedTuple):
    """The logarithm of the wealth after each observation, [observations, tests, stakes].

    `sums`, of the same shape, are the sums of the growth before each observation; the first row is minus the initial
    wealth.
    """

    wealth: Floats
    sums: Floats

    def find_starts(self, index: int) -> NDArray[np.intp]:
        """Return the observation at which the wealth after observation `index` was last reset, [tests, stakes].

        It is -1 for a wealth above 1 that was last reset before these observations.
        """
        starts = self.sums[: index + 1].argmin(axis=0)
        return np.where((starts == 0) & (self.sums[0] < 0), -1, starts)


def compute_growth(values: Floats, bounds: Floats) -> Floats:
    """Return the logarithms of the factors of the wealth, [observations, tests, stakes].

    `values` in 0..1 is [observations, tests]; NaN means "not observed" and leaves the wealth unchanged. `bounds`, above
    0 and at most 1, is [tests].
    """
    factors = np.multiply.outer((values - bounds) / bounds, np.asarray(STAKE_SHARES))
    growth: Floats = np.log1p(np.nan_to_num(factors, copy=False, nan=0.0))
    return growth


def follow_wealth(before: Floats, growth: Floats) -> Paths:
    """Return the wealth after each observation; `before` is the initial wealth as logarithms, [tests, stakes]."""
    totals = growth.cumsum(axis=0)
    # The wealth is the total minus the lowest earlier sum, at which it was last reset.
    sums = np.concatenate((-np.maximum(before, 0.0)[np.newaxis], totals[:-1]))
    totals -= np.minimum.accumulate(sums, axis=0)
    return Paths(totals, sums)


def average_wealth(wealth: Floats) -> Floats:
    """Return the logarithm of the average of the last two axes, [observations]."""
    rows = wealth.reshape(len(wealth), -1)
    largest = rows.max(axis=1)
    average: Floats = largest + np.log(np.exp(rows - largest[:, np.newaxis]).mean(axis=1))
    return average

"""Confidence intervals of a median, without assumptions about the distribution of the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True, slots=True)
class Interval:
    """Contains the median with at least the probability `confidence`."""

    low: float
    high: float
    confidence: float


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the narrowest symmetric interval between order statistics with that confidence, or else the widest one.

    If the values are independent, the number of them below the median follows a binomial distribution with probability
    1/2, whatever their distribution is (Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2). A few
    disturbed values do not move the interval. Raises ValueError without values.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    ordered, count = sorted(values), len(values)
    left_out, reached = 0, 1 - 2 * _probability_of_at_most(0, count)
    while left_out + 1 < count / 2 and (narrower := 1 - 2 * _probability_of_at_most(left_out + 1, count)) >= confidence:
        left_out, reached = left_out + 1, narrower
    return Interval(ordered[left_out], ordered[-1 - left_out], reached)


def _probability_of_at_most(successes: int, count: int) -> float:
    """Return the probability of at most `successes` heads in `count` tosses of a fair coin."""
    return sum(comb(count, number) for number in range(successes + 1)) * 0.5**count

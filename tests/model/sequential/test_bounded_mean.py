"""E-values and confidence bounds for a bounded mean, checked by exact enumeration."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import pytest

from model.sequential.bounded_mean import STAKE_SHARES, BoundedMean

SHARE = BoundedMean(0, 1)
DIFFERENCE = BoundedMean(-1, 1)
Distribution = Mapping[float, float]
# The kind of mean, the bound, and a distribution whose mean equals the bound; in INSIDE, it is below the bound.
AT_THE_BOUND: list[tuple[BoundedMean, float, Distribution]] = [
    (SHARE, 0.04, {1: 0.04, 0: 0.96}),
    (SHARE, 0.5, {1: 0.5, 0: 0.5}),
    (SHARE, 0.5, {1: 0.25, 0.5: 0.5, 0: 0.25}),
    (DIFFERENCE, 0.0, {1: 0.02, 0: 0.96, -1: 0.02}),
    (DIFFERENCE, 0.0, {1: 0.5, -1: 0.5}),
    (DIFFERENCE, 0.03, {1: 0.1, 0: 0.83, -1: 0.07}),
]
INSIDE: list[tuple[BoundedMean, float, Distribution]] = [
    (SHARE, 0.04, {1: 0.01, 0: 0.99}),
    (DIFFERENCE, 0.0, {1: 0.1, 0: 0.7, -1: 0.2}),
]


def expect_e(log_e: Callable[[Counter[float]], float], distribution: Distribution, n: int) -> float:
    """Return the expected e-value after `n` independent observations, as a sum over all possible counts."""
    values = list(distribution)
    total = 0.0
    for chosen in itertools.combinations_with_replacement(values, n):
        counts = Counter(chosen)
        ways = math.factorial(n) / math.prod(math.factorial(k) for k in counts.values())
        total += ways * math.prod(distribution[x] ** k for x, k in counts.items()) * math.exp(log_e(counts))
    return total


@pytest.mark.parametrize(("mean", "bound", "distribution"), AT_THE_BOUND)
@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_e_value_is_one_on_average_at_the_bound(
    mean: BoundedMean, bound: float, distribution: Distribution, n: int
) -> None:
    """If the mean equals the bound, the expected e-value is 1 in both directions, after any number of observations."""
    assert expect_e(lambda c: mean.compute_log_e_above(c, bound), distribution, n) == pytest.approx(1)
    assert expect_e(lambda c: mean.compute_log_e_below(c, bound), distribution, n) == pytest.approx(1)


@pytest.mark.parametrize(("mean", "bound", "distribution"), INSIDE)
def test_e_value_shrinks_inside_the_hypothesis(mean: BoundedMean, bound: float, distribution: Distribution) -> None:
    """If the mean is below the bound, the expected e-value is less than 1, and shrinks with more observations."""
    expected = [expect_e(lambda c: mean.compute_log_e_above(c, bound), distribution, n) for n in (1, 4, 12)]
    assert 1 > expected[0] > expected[1] > expected[2]


def test_e_value_allows_observations_that_depend_on_earlier_ones() -> None:
    """An adversary that picks each distribution after seeing the evidence cannot raise the expectation above 1."""
    choices: list[Distribution] = [
        {1: 0.5, -1: 0.5},
        {1: 0.01, 0: 0.98, -1: 0.01},
        {0: 1.0},
        {1: 0.2, -0.5: 0.4, 0: 0.4},
    ]

    def best(counts: Counter[float], remaining: int) -> float:
        if not remaining:
            return math.exp(DIFFERENCE.compute_log_e_above(counts, 0.0))
        return max(sum(p * best(counts + Counter([x]), remaining - 1) for x, p in choice.items()) for choice in choices)

    assert best(Counter(), 4) == pytest.approx(1)


def crossing_probability(mean: BoundedMean, bound: float, distribution: Distribution, level: float, n: int) -> float:
    """Return the exact probability that the e-value reaches 1 / level at any of the first `n` observations."""
    alive: dict[tuple[int, ...], float] = {tuple(0 for _ in distribution): 1.0}
    values, crossed = list(distribution), 0.0
    for _ in range(n):
        reached: defaultdict[tuple[int, ...], float] = defaultdict(float)
        for counts, probability in alive.items():
            for i, value in enumerate(values):
                after = tuple(k + (i == j) for j, k in enumerate(counts))
                reached[after] += probability * distribution[value]
        alive = {}
        for counts, probability in reached.items():
            if mean.compute_log_e_above(dict(zip(values, counts, strict=True)), bound) >= -math.log(level):
                crossed += probability
            else:
                alive[counts] = probability
    return crossed


@pytest.mark.parametrize(
    ("mean", "bound", "distribution", "n"),
    [
        (SHARE, 0.04, {1: 0.04, 0: 0.96}, 100),
        (SHARE, 0.5, {1: 0.5, 0: 0.5}, 100),
        (DIFFERENCE, 0.0, {1: 0.5, -1: 0.5}, 100),
        (DIFFERENCE, 0.0, {1: 0.1, 0: 0.8, -1: 0.1}, 25),
    ],
)
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_repeated_looks_keep_the_level(
    mean: BoundedMean, bound: float, distribution: Distribution, n: int, level: float
) -> None:
    """The probability that the e-value reaches 1 / level at any observation is at most the level."""
    assert 0 < crossing_probability(mean, bound, distribution, level, n) <= level


def test_only_discordant_pairs_count_for_equality() -> None:
    """With the bound 0, the e-value is McNemar's: a mean likelihood ratio of the discordant pairs against 1/2."""
    worse, better = 11, 3
    ratios = [(1 + share) ** worse * (1 - share) ** better for share in STAKE_SHARES]
    for same in (0, 1, 1000):
        log_e = DIFFERENCE.compute_log_e_above({1: worse, 0: same, -1: better}, 0.0)
        assert math.exp(log_e) == pytest.approx(sum(ratios) / len(ratios))


@pytest.mark.parametrize("level", [0.05, 0.0025])
@pytest.mark.parametrize("counts", [{1: 20, 0: 480}, {1: 3, 0: 40}, {1: 300, 0: 200}])
def test_bounds_are_where_the_evidence_reaches_the_threshold(counts: dict[float, int], level: float) -> None:
    """At each bound the e-value is 1 / level, and the bounds enclose the observed mean."""
    lower, upper = SHARE.find_lower_bound(counts, level), SHARE.find_upper_bound(counts, level)
    assert lower < counts[1] / sum(counts.values()) < upper
    assert SHARE.compute_log_e_above(counts, lower) == pytest.approx(-math.log(level), abs=1e-4)
    assert SHARE.compute_log_e_below(counts, upper) == pytest.approx(-math.log(level), abs=1e-4)
    assert SHARE.compute_log_e_above(counts, lower + 0.001) < -math.log(level)


def test_no_observation_says_nothing() -> None:
    """Without observations the e-value is 1, and the bounds are the range."""
    assert DIFFERENCE.compute_log_e_above({}, 0.0) == pytest.approx(0)
    assert (DIFFERENCE.find_lower_bound({}, 0.05), DIFFERENCE.find_upper_bound({}, 0.05)) == (-1, 1)


def test_large_counts_do_not_overflow() -> None:
    """A million observations give a finite logarithm."""
    assert SHARE.compute_log_e_above({1: 1_000_000, 0: 10}, 0.04) > 3_000_000


@pytest.mark.parametrize("bound", [0, 1, -0.1, 1.1, math.nan])
def test_bound_must_be_inside_the_range(bound: float) -> None:
    """A bound at or beyond an end of the range is an error, because no observation could be evidence against it."""
    with pytest.raises(ValueError, match="the bound"):
        SHARE.compute_log_e_above({1: 1}, bound)


@pytest.mark.parametrize("value", [1.5, -1, math.nan])
def test_observations_must_be_inside_the_range(value: float) -> None:
    """A value outside the range is an error, because it would void the guarantee."""
    with pytest.raises(ValueError, match="an observation"):
        SHARE.compute_log_e_above({value: 1}, 0.5)

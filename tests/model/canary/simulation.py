"""A form of the judge in NumPy, which judges many simulated candidates after every request.

`test_simulation.py` shows that it makes the same decisions as the real judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.canary.evidence import MEANS, Metric
from model.canary.judge import LIMITS, JudgeRules
from model.sequential.bounded_mean import STAKE_SHARES

RULES = JudgeRules()
NEVER = 10**9
# Evaluating in parts limits the memory.
_PART = 200_000
Counts = NDArray[np.int16]


@dataclass(frozen=True)
class Rates:
    """The probabilities that the candidate is worse or better in a comparison."""

    worse: float
    better: float = 0.0


@dataclass(frozen=True)
class Series:
    """How often the candidate was worse and better in the first 1, 2, … comparisons: int16 [runs, requests]."""

    worse: Counts
    better: Counts


def draw(rates: Rates, shape: tuple[int, int], generator: np.random.Generator) -> Series:
    """Draw independent comparisons for [runs, requests]."""
    uniform = generator.random(shape, np.float32)
    worse = uniform < rates.worse
    better = (uniform >= rates.worse) & (uniform < rates.worse + rates.better)
    return Series(worse.cumsum(1, np.int16), better.cumsum(1, np.int16))


def draw_all(
    candidate: Mapping[Metric, Rates], shape: tuple[int, int], generator: np.random.Generator
) -> dict[Metric, Series]:
    return {metric: draw(rates, shape, generator) for metric, rates in candidate.items()}


def find_take_back(metric: Metric, series: Series) -> NDArray[np.int64]:
    """The request at which each run shows that the metric is unacceptable, or NEVER: int64 [runs].

    The e-value can only exceed its earlier values in a comparison in which the candidate is worse.
    """
    looks = np.diff(series.worse, axis=1, prepend=0) > 0
    threshold = -math.log(RULES.metric_take_back_level)
    return _find_first(metric, series, looks, threshold, above=True)


def find_peak_acceptance(metric: Metric, series: Series) -> NDArray[np.int64]:
    """A request at which each run shows that the metric is acceptable, or NEVER: int64 [runs].

    The evidence for a promotion falls only in comparisons in which the candidate is worse, so this looks before each.
    """
    looks = np.diff(series.worse, axis=1, append=30_000) > 0
    threshold = -math.log(RULES.metric_promote_level)
    return _find_first(metric, series, looks, threshold, above=False)


def find_promotion(all_series: Mapping[Metric, Series], every: int) -> NDArray[np.int64]:
    """The first request at which all metrics are acceptable, or NEVER; this looks at one in `every` requests."""
    requests = np.arange(every, next(iter(all_series.values())).worse.shape[1] + 1, every)
    requests = requests[requests >= RULES.min_comparisons]
    acceptable = np.array(True)
    for metric, series in all_series.items():
        at = Series(series.worse[:, requests - 1], series.better[:, requests - 1])
        log_e = compute_log_e(metric, at.worse, at.better, np.broadcast_to(requests, at.worse.shape), above=False)
        acceptable = acceptable & (log_e >= -math.log(RULES.metric_promote_level))
    return np.where(acceptable.any(1), requests[acceptable.argmax(1)], NEVER)


def compute_log_e(
    metric: Metric, worse: Counts, better: Counts, comparisons: NDArray[np.int64], *, above: bool
) -> NDArray[np.float64]:
    """The logarithms of the e-values for taking back (`above`) or promoting, in the shape of the counts."""
    mean, limit = MEANS[metric], LIMITS[metric]
    sign, bound, lowest = (1, limit.tolerated, mean.lowest) if above else (-1, -limit.margin, -mean.highest)
    values = np.array([v for v in (1, 0, -1) if mean.lowest <= v <= mean.highest])
    counts = np.stack([worse, comparisons - worse - better, better], -1)[..., : len(values)]
    stakes = np.array(STAKE_SHARES) / (bound - lowest)
    wealth = counts @ np.log1p(np.outer(sign * values - bound, stakes))
    largest = wealth.max(-1, keepdims=True)
    averaged: NDArray[np.float64] = largest[..., 0] + np.log(np.exp(wealth - largest).mean(-1))
    return averaged


def _find_first(
    metric: Metric, series: Series, looks: NDArray[np.bool_], threshold: float, *, above: bool
) -> NDArray[np.int64]:
    looks[:, RULES.min_comparisons - 1] = True
    looks[:, : RULES.min_comparisons - 1] = False
    # While the observed mean is within the null hypothesis, no e-value reaches the threshold.
    expected = np.arange(1, looks.shape[1] + 1) * (LIMITS[metric].tolerated if above else LIMITS[metric].margin)
    excess = series.worse - series.better
    looks &= excess > expected if above else excess < expected
    first = np.full(len(looks), NEVER)
    runs, columns = looks.nonzero()
    for part in _split(len(runs)):
        r, c = runs[part], columns[part]
        log_e = compute_log_e(metric, series.worse[r, c], series.better[r, c], c + 1, above=above)
        reached = log_e >= threshold
        np.minimum.at(first, r[reached], c[reached] + 1)
    return first


def _split(total: int) -> Iterator[slice]:
    return (slice(start, start + _PART) for start in range(0, total, _PART))

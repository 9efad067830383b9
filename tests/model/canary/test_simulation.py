"""The judge's verdicts on simulated candidates: how soon they come, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.canary.evidence import Evidence, Metric, Tally
from model.canary.judge import LIMITS, Verdict, judge
from tests.model.canary.simulation import (
    NEVER,
    Rates,
    Series,
    draw,
    draw_all,
    find_peak_acceptance,
    find_promotion,
    find_take_back,
)

RUNS = 1000
# Two training runs of one recipe: they disagree on 2 % of the images and are equally accurate.
UNLABELLED = {
    Metric.DISAGREEMENT: Rates(0.02),
    Metric.ERROR_RATE: Rates(0.001, 0.001),
    Metric.LATENCY: Rates(0.3),
}
LABELLED = {**UNLABELLED, Metric.ACCURACY: Rates(0.01, 0.01)}
# A candidate at the tolerance of each metric.
TOLERATED = {
    Metric.DISAGREEMENT: Rates(0.04),
    Metric.ERROR_RATE: Rates(0.02, 0.02),
    Metric.LATENCY: Rates(0.5),
    Metric.ACCURACY: Rates(0.05, 0.05),
}
BAD = [
    (Metric.ERROR_RATE, Rates(0.05, 0.001)),
    (Metric.ERROR_RATE, Rates(0.2, 0.001)),
    (Metric.DISAGREEMENT, Rates(0.12)),
    (Metric.DISAGREEMENT, Rates(0.9)),
    (Metric.ACCURACY, Rates(0.09, 0.01)),
    (Metric.ACCURACY, Rates(0.3, 0.05)),
    (Metric.LATENCY, Rates(0.7)),
]


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(2026)


def take_back_any(candidate: dict[Metric, Series]) -> NDArray[np.int64]:
    """The request at which each run takes the candidate back, or NEVER."""
    requests = [find_take_back(metric, series) for metric, series in candidate.items()]
    earliest: NDArray[np.int64] = np.min(requests, axis=0)
    return earliest


def percentile_95(requests: NDArray[np.int64]) -> int:
    """The number of requests within which at least 95 % of the runs have decided."""
    return int(np.quantile(requests, 0.95, method="higher"))


@pytest.mark.parametrize(("metric", "rates"), BAD)
def test_bad_candidate_is_taken_back_within_500_requests(
    metric: Metric, rates: Rates, generator: np.random.Generator
) -> None:
    """A candidate with 5 % errors, 12 % disagreement or 8 points less accuracy is taken back in 500 requests (p95)."""
    assert percentile_95(find_take_back(metric, draw(rates, (RUNS, 500), generator))) <= 500


@pytest.mark.parametrize("candidate", [LABELLED, TOLERATED], ids=["equal", "tolerated"])
def test_tolerated_candidate_is_rarely_taken_back(
    candidate: dict[Metric, Rates], generator: np.random.Generator
) -> None:
    """At most 1 % of the runs take back an equal candidate, or one at all tolerances at once, in 5,000 requests."""
    taken_back = take_back_any(draw_all(candidate, (RUNS, 5000), generator)) < NEVER
    assert taken_back.mean() <= 0.01


def test_z_test_at_every_fiftieth_request_is_wrong_ten_times_as_often(generator: np.random.Generator) -> None:
    """A z-test at level 0.01 takes back about 10 % of equal candidates in 5,000 requests, and the judge at most 1 %."""
    series = draw(TOLERATED[Metric.ACCURACY], (RUNS, 5000), generator)
    worse, better = series.worse[:, 49::50], series.better[:, 49::50]
    z = (worse - better) / np.sqrt(np.maximum(worse + better, 1))
    false_alarms = (z > 2.326).any(1).mean()
    assert 0.06 <= false_alarms <= 0.15
    assert (find_take_back(Metric.ACCURACY, series) < NEVER).mean() <= 0.01


@pytest.mark.parametrize(("candidate", "limit"), [(UNLABELLED, 500), (LABELLED, 1200)], ids=["unlabelled", "labelled"])
def test_equal_candidate_is_promoted_soon(
    candidate: dict[Metric, Rates], limit: int, generator: np.random.Generator
) -> None:
    """An equal candidate is promoted, not taken back, within 500 unlabelled or 1,200 labelled requests (p95)."""
    all_series = draw_all(candidate, (RUNS, limit), generator)
    promoted = find_promotion(all_series, every=10)
    assert percentile_95(np.where(promoted < take_back_any(all_series), promoted, NEVER)) <= limit


@pytest.mark.parametrize(
    ("metric", "rates"),
    [
        (Metric.DISAGREEMENT, Rates(0.08)),
        (Metric.ERROR_RATE, Rates(0.026, 0.001)),
        (Metric.LATENCY, Rates(0.5)),
        (Metric.ACCURACY, Rates(0.05, 0.02)),
    ],
)
def test_candidate_at_the_margin_is_rarely_promoted(
    metric: Metric, rates: Rates, generator: np.random.Generator
) -> None:
    """If one metric is at its margin, at most 5 % of the runs ever show it to be acceptable in 5,000 requests."""
    assert rates.worse - rates.better == pytest.approx(LIMITS[metric].margin)
    series = draw(rates, (RUNS, 5000), generator)
    assert (find_peak_acceptance(metric, series) < NEVER).mean() <= 0.05


def judge_step_by_step(candidate: dict[Metric, Series], run: int) -> tuple[Verdict, int]:
    """The first verdict of the real judge, which is called after every request of one run, and the request."""
    requests = next(iter(candidate.values())).worse.shape[1]
    for n in range(1, requests + 1):
        counts = {metric: (int(s.worse[run, n - 1]), int(s.better[run, n - 1])) for metric, s in candidate.items()}
        tallies = {metric: Tally(worse, n - worse - better, better) for metric, (worse, better) in counts.items()}
        verdict = judge(Evidence(tallies)).verdict
        if verdict is not Verdict.HOLD:
            return verdict, n
    return Verdict.HOLD, NEVER


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {Metric.ERROR_RATE: Rates(0.08, 0.001)},
        {Metric.DISAGREEMENT: Rates(0.2)},
        {Metric.ACCURACY: Rates(0.15, 0.01)},
        {Metric.LATENCY: Rates(0.8)},
    ],
    ids=["equal", "errors", "disagreement", "accuracy", "latency"],
)
def test_simulated_judge_decides_as_the_real_one(changes: dict[Metric, Rates], generator: np.random.Generator) -> None:
    """In each run, the real judge and its form in NumPy reach the same verdict at the same request."""
    candidate = draw_all({**LABELLED, **changes}, (3, 900), generator)
    taken_back, promoted = take_back_any(candidate), find_promotion(candidate, every=1)
    for run in range(3):
        expected = Verdict.TAKE_BACK if taken_back[run] <= promoted[run] else Verdict.PROMOTE
        first = min(taken_back[run], promoted[run])
        verdict = expected if first < NEVER else Verdict.HOLD
        assert judge_step_by_step(candidate, run) == (verdict, first)

"""The verdict on a candidate."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import asdict

from model.canary.evidence import Evidence, Metric, Tally
from model.canary.judge import LIMITS, Finding, JudgeRules, Limit, Verdict, judge
from model.canary.report import build_table, explain

D, E, L, A = Metric.DISAGREEMENT, Metric.ERROR_RATE, Metric.LATENCY, Metric.ACCURACY
# Enough evidence to promote a candidate.
EQUAL = {D: Tally(10, 490), E: Tally(0, 500), L: Tally(50, 450), A: Tally(8, 984, 8)}


def without(*metrics: Metric) -> dict[Metric, Tally]:
    return {metric: tally for metric, tally in EQUAL.items() if metric not in metrics}


@pytest.mark.parametrize(
    ("tallies", "verdict"),
    [
        (EQUAL, Verdict.PROMOTE),
        (without(A), Verdict.PROMOTE),
        (without(D), Verdict.PROMOTE),
        (without(A) | {A: Tally(5, 24)}, Verdict.PROMOTE),
        (without(A, D), Verdict.HOLD),
        (without(E), Verdict.HOLD),
        (without(L), Verdict.HOLD),
        (without(A) | {A: Tally(1, 60, 1)}, Verdict.HOLD),
        (without(D) | {D: Tally(2, 30)}, Verdict.HOLD),
        (without(E) | {E: Tally(30, 470)}, Verdict.TAKE_BACK),
        (without(D) | {D: Tally(60, 440)}, Verdict.TAKE_BACK),
        (without(L) | {L: Tally(350, 150)}, Verdict.TAKE_BACK),
        (without(A) | {A: Tally(45, 450, 5)}, Verdict.TAKE_BACK),
        ({A: Tally(45, 450, 5)}, Verdict.TAKE_BACK),
        ({}, Verdict.HOLD),
    ],
)
def test_verdict_needs_every_metric_to_promote_and_one_to_take_back(
    tallies: dict[Metric, Tally], verdict: Verdict
) -> None:
    """One unacceptable metric takes the candidate back; a promotion needs errors, latency and compared predictions."""
    assert judge(Evidence(tallies)).verdict is verdict


@pytest.mark.parametrize("metric", Metric)
def test_verdict_needs_thirty_comparisons(metric: Metric) -> None:
    """A candidate that is worse every time is taken back at the 30th comparison, and not before."""
    assert judge(Evidence({metric: Tally(29)})).verdict is Verdict.HOLD
    assert judge(Evidence({metric: Tally(30)})).verdict is Verdict.TAKE_BACK


def test_errors_of_production_excuse_those_of_the_candidate() -> None:
    """The candidate is not taken back in an outage in which both models fail equally often."""
    assert judge(Evidence({E: Tally(60, 380, 60)})).verdict is Verdict.HOLD


def test_levels_are_split_over_the_metrics() -> None:
    """Each metric gets a quarter of both levels; it is unacceptable if its e-value reaches the inverse of its level."""
    rules = JudgeRules()
    assert (rules.metric_take_back_level, rules.metric_promote_level) == (0.0025, 0.0125)
    findings = {}
    for worse in range(30, 60):
        row = build_table(judge(Evidence({D: Tally(worse, 500 - worse)})))[0]
        assert (row.finding is Finding.UNACCEPTABLE) == (row.take_back_e >= 400)
        findings[worse] = row.finding
    assert {findings[30], findings[59]} == {Finding.OPEN, Finding.UNACCEPTABLE}


def test_limits_can_be_set() -> None:
    """With a larger limit for disagreement, a candidate that is meant to differ is promoted instead of taken back."""
    rules = JudgeRules(limits={**LIMITS, D: Limit(tolerated=0.15, margin=0.2)})
    tallies = without(D) | {D: Tally(60, 440)}
    assert judge(Evidence(tallies)).verdict is Verdict.TAKE_BACK
    assert judge(Evidence(tallies), rules).verdict is Verdict.PROMOTE


@pytest.mark.parametrize(("worse", "finding"), [(4, "acceptable"), (25, "open"), (60, "unacceptable")])
def test_table_agrees_with_the_verdict(worse: int, finding: str) -> None:
    """A lower bound above the tolerance is unacceptable, and an upper bound below the margin is acceptable."""
    row = build_table(judge(Evidence({D: Tally(worse, 500 - worse)})))[0]
    assert row.finding == finding
    assert row.lower <= row.share == worse / 500 <= row.upper
    assert (row.lower > row.tolerated) == (finding == "unacceptable")
    assert (row.upper < row.margin) == (finding == "acceptable")


def test_table_is_plain_data() -> None:
    """The table has a row for each metric and becomes JSON, even without comparisons or with very large e-values."""
    for tallies in ({}, {D: Tally(100_000)}):
        rows = [asdict(row) for row in build_table(judge(Evidence(tallies)))]
        document = json.loads(json.dumps(rows, allow_nan=False))
        assert [row["metric"] for row in document] == ["disagreement", "error_rate", "latency", "accuracy"]
        assert document[3]["comparisons"] == 0


@pytest.mark.parametrize(
    ("tallies", "reasons"),
    [
        (
            without(D) | {D: Tally(60, 440)},
            [
                "The disagreement is at least 7.1 %, more than the 4.0 % tolerated (12.0 % of 500 comparisons; "
                "e-value 9.56e+10, 400 required)."
            ],
        ),
        (
            without(A, L) | {L: Tally(2, 10)},
            ["The share of slow requests needs at least 30 comparisons and has 12."],
        ),
        (
            without(A, D) | {A: Tally(0, 3)},
            [
                "Too few predictions are compared: at least 30 images that both models classified (0 so far) or 30 "
                "labelled predictions (3 so far) are required."
            ],
        ),
        (
            without(A, D) | {D: Tally(4, 116)},
            [
                "The disagreement is at most 13.0 % and must be shown to be less than 8.0 % (3.3 % of 120 comparisons; "
                "about 398 more at this rate)."
            ],
        ),
        (
            without(A, D) | {D: Tally(10, 100)},
            [
                "The disagreement is at most 21.9 % and must be shown to be less than 8.0 % (9.1 % of 110 comparisons; "
                "no evidence for a promotion so far)."
            ],
        ),
    ],
)
def test_reasons_say_what_decided_or_what_is_missing(tallies: dict[Metric, Tally], reasons: list[str]) -> None:
    """The reasons name the metric, the bound, the limit and the data, and estimate how much data is missing."""
    assert list(explain(judge(Evidence(tallies)))) == reasons

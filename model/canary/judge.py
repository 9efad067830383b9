"""The verdict on a candidate: an always-valid sequential test of each metric (ADR 0034)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, field

from model.canary.evidence import MEANS, Evidence, Metric, Tally


class Verdict(StrEnum):
    TAKE_BACK = "take_back"
    PROMOTE = "promote"
    HOLD = "hold"


class Finding(StrEnum):
    """What the comparisons show about one metric."""

    TOO_FEW = "too_few"
    OPEN = "open"
    ACCEPTABLE = "acceptable"
    UNACCEPTABLE = "unacceptable"


class Limit(Struct, frozen=True):
    """Limits of the excess: the share of comparisons in which the candidate is worse, minus that in which it is better.

    The candidate is taken back if its excess is shown to be above `tolerated`, and promoted only if it is shown to be
    below `margin`. Between the two, either verdict is acceptable.
    """

    tolerated: float
    margin: float


LIMITS: Mapping[Metric, Limit] = MappingProxyType(
    {
        Metric.DISAGREEMENT: Limit(tolerated=0.04, margin=0.08),
        Metric.ERROR_RATE: Limit(tolerated=0.0, margin=0.025),
        Metric.LATENCY: Limit(tolerated=0.5, margin=0.5),  # if half of the requests are slower, so is the median
        Metric.ACCURACY: Limit(tolerated=0.0, margin=0.03),
    }
)

# The metrics of the predictions themselves.
QUALITY = frozenset({Metric.DISAGREEMENT, Metric.ACCURACY})


class JudgeRules(Struct, frozen=True):
    """The levels are probabilities of a wrong verdict, divided equally among the metrics.

    A metric with fewer than `min_comparisons` stays undecided.
    """

    limits: Mapping[Metric, Limit] = field(default_factory=lambda: LIMITS)
    take_back_level: float = 0.01
    promote_level: float = 0.05
    min_comparisons: int = 30

    @property
    def metric_take_back_level(self) -> float:
        return self.take_back_level / len(Metric)

    @property
    def metric_promote_level(self) -> float:
        return self.promote_level / len(Metric)


class MetricEvidence(Struct, frozen=True):
    """The evidence on one metric, as natural logarithms of e-values, and the finding."""

    metric: Metric
    tally: Tally
    take_back_log_e: float
    promote_log_e: float
    finding: Finding


class Judgement(Struct, frozen=True):
    """`evidence` has one element for each metric, in the order of `Metric`."""

    verdict: Verdict
    evidence: tuple[MetricEvidence, ...]
    rules: JudgeRules


def judge(evidence: Evidence, rules: JudgeRules | None = None) -> Judgement:
    """Decide from all comparisons so far. It is valid to decide after every request."""
    rules = rules or JudgeRules()
    weighed = tuple(_weigh(metric, evidence.get(metric), rules) for metric in Metric)
    if any(one.finding is Finding.UNACCEPTABLE for one in weighed):
        verdict = Verdict.TAKE_BACK
    elif list_undecided(weighed):
        verdict = Verdict.HOLD
    else:
        verdict = Verdict.PROMOTE
    return Judgement(verdict, weighed, rules)


def list_undecided(weighed: tuple[MetricEvidence, ...]) -> list[MetricEvidence]:
    """Return the metrics that must still be shown to be acceptable before a promotion.

    Error rate and latency are required, and so are disagreement and accuracy if they have enough comparisons. If
    neither has, both are returned, because nothing is known about the predictions.
    """
    findings = {one.metric: one.finding for one in weighed}
    compared = {metric for metric in QUALITY if findings[metric] is not Finding.TOO_FEW}
    required = {Metric.ERROR_RATE, Metric.LATENCY} | (compared or QUALITY)
    return [one for one in weighed if one.metric in required and one.finding is not Finding.ACCEPTABLE]


def _weigh(metric: Metric, tally: Tally, rules: JudgeRules) -> MetricEvidence:
    mean, limit, counts = MEANS[metric], rules.limits[metric], tally.count_values()
    take_back = mean.compute_log_e_above(counts, limit.tolerated)
    promote = mean.compute_log_e_below(counts, limit.margin)
    if tally.comparisons < rules.min_comparisons:
        finding = Finding.TOO_FEW
    elif take_back >= -math.log(rules.metric_take_back_level):
        finding = Finding.UNACCEPTABLE
    elif promote >= -math.log(rules.metric_promote_level):
        finding = Finding.ACCEPTABLE
    else:
        finding = Finding.OPEN
    return MetricEvidence(metric, tally, take_back, promote, finding)

"""Report a judgement in readable form: a table of the evidence, and sentences that give the reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec import Struct

from model.canary.evidence import MEANS, SLOWER_FACTOR, Metric
from model.canary.judge import QUALITY, Finding, Judgement, MetricEvidence, Verdict, list_undecided

_DESCRIPTIONS = {
    Metric.DISAGREEMENT: "images that the two models classify differently",
    Metric.ERROR_RATE: "requests that fail, less those that fail in production",
    Metric.LATENCY: f"requests that take more than {SLOWER_FACTOR} times as long as in production",
    Metric.ACCURACY: "labelled images that are classified wrongly, less those in production",
}
_NAMES = {
    Metric.DISAGREEMENT: "disagreement",
    Metric.ERROR_RATE: "excess of errors",
    Metric.LATENCY: "share of slow requests",
    Metric.ACCURACY: "loss of accuracy",
}
_MAX_LOG = 700.0  # exp() of more overflows


class EvidenceRow(Struct, frozen=True):
    """One metric. `share` is the share of comparisons where the candidate is worse, minus that where it is better.

    The bounds hold over the whole trial. The probability that the true share is ever below `lower` is at most the
    take-back level divided by the number of metrics. The probability that it is ever above `upper` is at most the
    promotion level divided by that number. `finding` is unacceptable if `lower` exceeds `tolerated`, and acceptable if
    `upper` is less than `margin`.
    """

    metric: Metric
    description: str
    worse: int
    better: int
    comparisons: int
    share: float
    lower: float
    upper: float
    tolerated: float
    margin: float
    take_back_e: float
    take_back_e_required: float
    promote_e: float
    promote_e_required: float
    finding: Finding


def build_table(judgement: Judgement) -> tuple[EvidenceRow, ...]:
    """Return a row for each metric, including those without comparisons."""
    return tuple(_build_row(judgement, evidence) for evidence in judgement.evidence)


def explain(judgement: Judgement) -> tuple[str, ...]:
    """Return the reasons for the verdict, or what is missing for a promotion: a sentence for each metric concerned."""
    if judgement.verdict is Verdict.HOLD:
        return tuple(_describe_all_missing(judgement))
    decisive = Finding.UNACCEPTABLE if judgement.verdict is Verdict.TAKE_BACK else Finding.ACCEPTABLE
    return tuple(_describe_finding(row) for row in build_table(judgement) if row.finding is decisive)


def _build_row(judgement: Judgement, evidence: MetricEvidence) -> EvidenceRow:
    rules, tally, mean = judgement.rules, evidence.tally, MEANS[evidence.metric]
    limit, counts = rules.limits[evidence.metric], tally.count_values()
    return EvidenceRow(
        metric=evidence.metric,
        description=_DESCRIPTIONS[evidence.metric],
        worse=tally.worse,
        better=tally.better,
        comparisons=tally.comparisons,
        share=tally.excess,
        lower=mean.find_lower_bound(counts, rules.metric_take_back_level),
        upper=mean.find_upper_bound(counts, rules.metric_promote_level),
        tolerated=limit.tolerated,
        margin=limit.margin,
        take_back_e=math.exp(min(evidence.take_back_log_e, _MAX_LOG)),
        take_back_e_required=1 / rules.metric_take_back_level,
        promote_e=math.exp(min(evidence.promote_log_e, _MAX_LOG)),
        promote_e_required=1 / rules.metric_promote_level,
        finding=evidence.finding,
    )


def _describe_finding(row: EvidenceRow) -> str:
    """Return the sentence for a decided metric."""
    if row.finding is Finding.UNACCEPTABLE:
        bound = f"at least {_percent(row.lower)}, more than the {_percent(row.tolerated)} tolerated"
        e_value = f"{row.take_back_e:.3g}, {row.take_back_e_required:.3g} required"
    else:
        bound = f"at most {_percent(row.upper)}, less than the margin of {_percent(row.margin)}"
        e_value = f"{row.promote_e:.3g}, {row.promote_e_required:.3g} required"
    measured = f"{_percent(row.share)} of {row.comparisons} comparisons"
    return f"The {_NAMES[row.metric]} is {bound} ({measured}; e-value {e_value})."


def _describe_all_missing(judgement: Judgement) -> Iterator[str]:
    undecided = list_undecided(judgement.evidence)
    # This contains both metrics or neither: one with enough comparisons is sufficient.
    too_few = [one for one in undecided if one.metric in QUALITY and one.finding is Finding.TOO_FEW]
    if too_few:
        images, labels = (one.tally.comparisons for one in too_few)
        required = judgement.rules.min_comparisons
        yield (
            f"Too few predictions are compared: at least {required} images that both models classified ({images} so "
            f"far) or {required} labelled predictions ({labels} so far) are required."
        )
    yield from (_describe_missing(judgement, one) for one in undecided if one not in too_few)


def _describe_missing(judgement: Judgement, evidence: MetricEvidence) -> str:
    """Return the sentence for a metric that has not been shown to be acceptable."""
    name, comparisons = _NAMES[evidence.metric], evidence.tally.comparisons
    if evidence.finding is Finding.TOO_FEW:
        required = judgement.rules.min_comparisons
        return f"The {name} needs at least {required} comparisons and has {comparisons}."
    row = _build_row(judgement, evidence)
    measured = f"{_percent(row.share)} of {comparisons} comparisons"
    bound = f"at most {_percent(row.upper)} and must be shown to be less than {_percent(row.margin)}"
    return f"The {name} is {bound} ({measured}; {_estimate_remaining(judgement, evidence)})."


def _estimate_remaining(judgement: Judgement, evidence: MetricEvidence) -> str:
    """Extrapolate the evidence for a promotion: its logarithm grows in proportion to the comparisons."""
    if evidence.promote_log_e <= 0:
        return "no evidence for a promotion so far"
    missing = -math.log(judgement.rules.metric_promote_level) / evidence.promote_log_e - 1
    return f"about {math.ceil(missing * evidence.tally.comparisons)} more at this rate"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

"""Reports on candidates for operators, in the log and in the metrics."""

from __future__ import annotations

import math

import structlog

from api.server.exit_status import describe_error
from model.canary.contest import Contest
from model.canary.evidence import MEANS, Evidence
from model.canary.judge import Judgement, Verdict
from model.canary.trial import ShadowOutcome
from monitoring.metrics import Metrics

_POLICY = "production is served"

log = structlog.get_logger("atalaya.canary")


class CanaryReports:
    """Observes the follower and its trials."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._trial: str | None = None

    def on_start(self, contest: Contest) -> None:
        self._trial = contest.id
        self._show_counters()
        log.info("candidate_in_trial", candidate=contest.candidate, production=contest.production)

    def on_end(self, contest: Contest) -> None:
        self._trial = None
        for metric in MEANS:
            self._show_evidence(metric, math.nan, math.nan)  # otherwise, it would seem to be that of a later trial
        log.info("candidate_released", candidate=contest.candidate, production=contest.production)

    def on_failure(self, contest: Contest, error: Exception) -> None:
        code, (reason, *_) = describe_error(error)
        log.error("candidate_not_tried", candidate=contest.candidate, code=code, reason=reason, policy=_POLICY)

    def on_check_failure(self, error: Exception) -> None:
        log.error("candidate_not_checked", policy=f"{_POLICY}; the next checks try again", exc_info=error)

    def on_error(self, error: Exception) -> None:
        log.warning(
            "candidate_failed",
            reason=describe_error(error)[1][0],
            policy="the failure is counted, and production responds",
        )

    def on_evidence(self, evidence: Evidence) -> None:
        for metric, tally in evidence.tallies.items():
            for result in ("worse", "same", "better"):
                if n := getattr(tally, result):
                    self._metrics.canary_comparisons.labels(metric, result).inc(n)

    def on_shadow(self, outcome: ShadowOutcome) -> None:
        self._metrics.canary_shadow.labels(outcome).inc()

    def on_judgement(self, trial: str, judgement: Judgement) -> None:
        """Show the evidence, unless it is that of an earlier trial, for which a label has arrived late."""
        if trial == self._trial:
            for one in judgement.evidence:
                self._show_evidence(one.metric, one.take_back_log_e, one.promote_log_e)

    def _show_evidence(self, metric: str, take_back_log_e: float, promote_log_e: float) -> None:
        self._metrics.canary_log_e.labels(metric, "take_back").set(take_back_log_e)
        self._metrics.canary_log_e.labels(metric, "promote").set(promote_log_e)

    def _show_counters(self) -> None:
        """Expose every series when a trial starts: Prometheus sees no increase in a series that begins above 0."""
        for metric, mean in MEANS.items():
            for result in ("worse", "same", "better") if mean.lowest else ("worse", "same"):
                self._metrics.canary_comparisons.labels(metric, result)
        for outcome in ShadowOutcome:
            self._metrics.canary_shadow.labels(outcome)
        for verdict in (Verdict.TAKE_BACK, Verdict.PROMOTE):
            self._metrics.canary_verdicts.labels(verdict)

"""The response about the trial of a candidate."""

from __future__ import annotations

from pydantic import Field

from api.schemas.base import ResponseBody
from api.services.canary.status import ModelStatus, TrialStatus
from api.settings.quality.canary import CanarySettings, VerdictPolicy
from model.canary.assignment import Mode
from model.canary.evidence import Metric
from model.canary.judge import Finding, Verdict
from model.canary.report import EvidenceRow


class MetricEvidence(ResponseBody):
    """`share` is the share of comparisons in which the candidate is worse, minus the share in which it is better."""

    metric: Metric
    description: str
    comparisons: int
    worse: int
    better: int
    share: float
    lower: float = Field(description="the true share is probably not below it")
    upper: float = Field(description="the true share is probably not above it")
    tolerated: float = Field(description="the candidate is taken back when `lower` is above it")
    margin: float = Field(description="the candidate may be promoted when `upper` is below it")
    finding: Finding

    @classmethod
    def of(cls, row: EvidenceRow) -> MetricEvidence:
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class TrialResponse(ResponseBody):
    mode: Mode = Field(description="what the candidate gets: copies of requests, or callers")
    share_of_traffic: float
    policy: VerdictPolicy = Field(description="whether the gateway acts on a verdict")
    started_at: str | None = Field(description="UTC; null before the first process has loaded the candidate")
    judged_at: str | None = Field(description="UTC; null until there is a verdict")
    verdict: Verdict = Field(description="`hold` until there is a verdict")
    reasons: list[str] = Field(description="why the verdict was reached, or what is missing for one")
    evidence: list[MetricEvidence]

    @classmethod
    def of(cls, trial: TrialStatus, settings: CanarySettings) -> TrialResponse:
        return cls(
            mode=settings.mode,
            share_of_traffic=settings.share,
            policy=settings.verdict,
            started_at=trial.started_at,
            judged_at=trial.judged_at,
            verdict=Verdict(trial.verdict),
            reasons=list(trial.reasons),
            evidence=[MetricEvidence.of(row) for row in trial.rows],
        )


class ModelStatusResponse(ResponseBody):
    name: str
    production: str = Field(description="the version in production")
    candidate: str | None
    trial: TrialResponse | None = Field(description="null without a candidate")

    @classmethod
    def of(cls, status: ModelStatus, settings: CanarySettings) -> ModelStatusResponse:
        trial = None if status.trial is None else TrialResponse.of(status.trial, settings)
        candidate = None if status.contest is None else status.contest.candidate
        return cls(name=status.model, production=status.production, candidate=candidate, trial=trial)

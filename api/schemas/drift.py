"""The response of `/v1/drift`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import ConfigDict, Field

from api.schemas.base import ResponseBody
from monitoring.quality.drift.store import ALL


class _Result(ResponseBody):
    model_config = ConfigDict(from_attributes=True)


class ComparisonResponse(_Result):
    name: str = Field(description="a measure such as `brightness`, or a class")
    reference: float | None = Field(description="mean, or share of the class, in the reference; null if unknown")
    recent: float | None = Field(description="the same in about the last 100 predictions; null if unknown")


class ModelDriftResponse(_Result):
    """All callers together."""

    model: str
    predictions: int
    callers: int = Field(description="callers that are tracked individually")
    last_prediction: datetime
    measures: list[ComparisonResponse] = Field(description="empty if the gateway has no reference of the model")
    classes: list[ComparisonResponse]


class FindingResponse(_Result):
    """A metric differs from the reference."""

    model: str
    caller: str | None = Field(description="the subject; null for all callers together")
    metric: str
    change: str = Field(
        description="`higher`, `lower` or `lower_and_higher`; for `class_mix`, the class that is more frequent"
    )
    since: datetime = Field(description="when the difference probably began")
    found_at: datetime
    reference: float | None
    recent: float | None = Field(description="the recent value when the difference was last found")


class DriftResponse(ResponseBody):
    drifting: bool
    findings: list[FindingResponse] = Field(description="at most 1,000: those of all callers together first")
    models: list[ModelDriftResponse] = Field(description="models that have made predictions in the last seven days")

    @classmethod
    def of(cls, report: Any) -> Self:
        findings = [FindingResponse.model_validate(each) for each in report.findings]
        for each in findings:
            each.caller = None if each.caller == ALL else each.caller
        models = [ModelDriftResponse.model_validate(each) for each in report.models]
        return cls(drifting=bool(findings), findings=findings, models=models)

"""The response of `/v1/models/{name}/quality`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from api.schemas.base import ResponseBody
from model.quality.results import MIN_CLASS_LABELS


class _Result(ResponseBody):
    model_config = ConfigDict(from_attributes=True)


class IntervalResponse(_Result):
    """A share in 0..1 with its 95 % confidence interval."""

    value: float
    lower: float
    upper: float


class ConfusionResponse(_Result):
    """How many images of the class were classified as another one."""

    predicted: str
    count: int
    share: IntervalResponse


class ClassQualityResponse(_Result):
    """Results of the images that belong to one class."""

    label: str
    labelled: int
    recall: IntervalResponse = Field(description="the share of them that was recognised")
    confusions: list[ConfusionResponse] = Field(description="most frequent first")


class VersionQualityResponse(_Result):
    version: str
    predictions: int = Field(description="without those on which the model abstained")
    abstained: int
    labelled: int = Field(description="predictions with a label, without those on which the model abstained")
    accuracy: IntervalResponse | None = Field(description="of the labelled predictions")
    ece: float | None = Field(description="the calibration error of the labelled predictions")
    estimated_accuracy: IntervalResponse | None = Field(
        description="of all predictions, estimated from their calibrated confidence without labels"
    )
    classes: list[ClassQualityResponse] = Field(description=f"with at least {MIN_CLASS_LABELS} labels each")
    few_labels: dict[str, int] = Field(description="labels of the other classes")


class QualityResponse(ResponseBody):
    model: str
    since: datetime | None = Field(description="only predictions since then are included; null: all")
    versions: list[VersionQualityResponse]

    @classmethod
    def of(cls, model: str, since: datetime | None, versions: Any) -> QualityResponse:
        return cls(
            model=model, since=since, versions=[VersionQualityResponse.model_validate(each) for each in versions]
        )

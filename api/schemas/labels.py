"""The labels of `GET /v1/labels`, and the body and the response of `POST /v1/predictions/{id}/label`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from api.prediction.labels import RecordedLabel
from api.schemas.base import ResponseBody
from api.schemas.predictions import ModelResponse
from model.backends.base import ModelInfo
from model.display_names import find_display_name


class NewLabel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str = Field(
        min_length=1,
        max_length=320,
        description="the true class: one of the classes of the model that made the prediction",
        json_schema_extra={"format": "class"},
    )


class LabelResponse(ResponseBody):
    id: str = Field(description="of the label's entry in the ledger, UUIDv7")
    prediction: str = Field(description="the id of the prediction")
    label: str
    predicted: str = Field(description="what the model predicted")
    correct: bool
    supersedes: str | None = Field(description="the id of the label that no longer counts, null for a first label")

    @classmethod
    def of(cls, recorded: RecordedLabel) -> LabelResponse:
        return cls(
            id=recorded.id,
            prediction=recorded.prediction,
            label=recorded.label,
            predicted=recorded.predicted,
            correct=recorded.is_correct,
            supersedes=recorded.supersedes,
        )


class DisplayedLabel(ResponseBody):
    index: int = Field(description="position among the model's outputs")
    label: str = Field(description="stable: predictions contain it in every language")
    display_name: str = Field(description="for people, in the language of the response")


class LabelList(ResponseBody):
    model: ModelResponse
    language: str = Field(description="`en` or `es`")
    labels: list[DisplayedLabel]

    @classmethod
    def of(cls, model: ModelInfo, language: str) -> LabelList:
        labels = [
            DisplayedLabel(index=index, label=label, display_name=find_display_name(label, language))
            for index, label in enumerate(model.classes)
        ]
        described = ModelResponse(name=model.name, version=model.version, digest=model.digest or None)
        return cls(model=described, language=language, labels=labels)

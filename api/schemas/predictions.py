"""The responses of the prediction routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from api.schemas.base import ResponseBody
from model.confidence.abstention import AbstentionReason
from model.explanation.explanation import METHOD, Explanation
from model.serving.prediction import ImageFacts, Prediction

_MAP_DECIMALS = 3


class LandUse(ResponseBody):
    """The fields that the research team's script returns, and those that the gateway adds."""

    prediction: int = Field(description="index of the class")
    prediction_probability: list[list[float]] = Field(
        description="a list that contains one list: the model's uncalibrated probability of each class"
    )
    label: str
    model: str
    id: str

    @classmethod
    def of(cls, prediction: Prediction, prediction_id: str) -> LandUse:
        return cls(
            prediction=prediction.index,
            prediction_probability=[prediction.probabilities.tolist()],
            label=prediction.label,
            model=prediction.model.full_name,
            id=prediction_id,
        )


class LabelProbability(ResponseBody):
    label: str
    probability: float = Field(description="calibrated")

    @classmethod
    def list_of(cls, pairs: Iterable[tuple[str, float]]) -> list[LabelProbability]:
        return [cls(label=label, probability=probability) for label, probability in pairs]


class ImageResponse(ResponseBody):
    """Entries of earlier releases lack the fields that have a default."""

    sha256: str
    format: str
    width: int
    height: int
    bit_depth: int | None = Field(default=None, description="bits of a sample in the file")
    scaling: str | None = Field(default=None, description="how samples became 8-bit ones, such as `none` or `11_to_8`")
    ground_resolution_m: float | None = Field(
        default=None,
        description="metres on the ground per pixel of the file; null if the file does not say",
    )


class ExplanationResponse(ResponseBody):
    """Where in the image the model sees the class `label`."""

    method: str = Field(description=f"`{METHOD}`")
    label: str = Field(description="the class that is explained")
    width: int = Field(description="columns of `map`, which covers the whole image")
    height: int = Field(description="rows of `map`")
    offset_x: float = Field(description="how far to the right of its cell's centre a value belongs, in cells")
    offset_y: float = Field(description="how far below its cell's centre a value belongs, in cells")
    map: list[list[float]] = Field(
        description="rows from top to bottom, in 0..1: 1 where the support for the class is strongest"
    )

    @classmethod
    def of(cls, explanation: Explanation) -> ExplanationResponse:
        height, width = explanation.heat.shape
        down, right = explanation.offset
        return cls(
            method=METHOD,
            label=explanation.label,
            width=width,
            height=height,
            offset_x=round(right, _MAP_DECIMALS),
            offset_y=round(down, _MAP_DECIMALS),
            map=[[round(value, _MAP_DECIMALS) for value in row] for row in explanation.heat.tolist()],
        )


class WarningResponse(ResponseBody):
    """A reason to doubt the prediction, which has no influence on it."""

    code: str
    detail: str


class ModelResponse(ResponseBody):
    name: str
    version: str
    digest: str | None = Field(
        description="SHA-256 of the model file; null if an inference engine serves it and does not report it"
    )


class PredictionResponse(ResponseBody):
    id: str = Field(description="UUIDv7")
    label: str
    confidence: float = Field(description="calibrated probability of the label")
    abstained: bool = Field(description="whether the model advises against relying on the label")
    reason: AbstentionReason | None = Field(description="why the model abstains")
    predictions: list[LabelProbability] = Field(description="the `top_k` most probable labels, most probable first")
    coverage: float | None = Field(description="the requested coverage of `prediction_set`")
    prediction_set: list[LabelProbability] | None = Field(
        description="labels that contain the true one with probability `coverage`, most probable first"
    )
    explanation: ExplanationResponse | None = Field(description="null without `explain`")
    model: ModelResponse
    image: ImageResponse
    warnings: list[WarningResponse]
    timing: dict[str, float] = Field(description="milliseconds by stage")

    @classmethod
    def describe(
        cls, prediction: Prediction, prediction_id: str, top_k: int, coverage: float | None = None
    ) -> dict[str, Any]:
        """Return the fields of a response without validating what was just built. Raises SetsUnavailable."""
        info, explanation = prediction.model, prediction.explanation
        return {
            "id": prediction_id,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "abstained": prediction.reason is not None,
            "reason": prediction.reason,
            "predictions": _list_labels(prediction.top(top_k)),
            "coverage": coverage,
            "prediction_set": None if coverage is None else _list_labels(prediction.find_set(coverage)),
            "explanation": None if explanation is None else ExplanationResponse.of(explanation).model_dump(),
            "model": {"name": info.name, "version": info.version, "digest": info.digest or None},
            "image": _describe_image(prediction.image),
            "warnings": [{"code": each.code, "detail": each.detail} for each in prediction.warnings],
            "timing": {stage: round(seconds * 1000, 3) for stage, seconds in prediction.timing.items()},
        }


def _list_labels(pairs: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in pairs]


def _describe_image(image: ImageFacts) -> dict[str, Any]:
    return {
        "sha256": image.sha256,
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "bit_depth": image.bit_depth,
        "scaling": image.scaling,
        "ground_resolution_m": image.ground_resolution_m,
    }

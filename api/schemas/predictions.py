"""The shapes of the answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, BeforeValidator, Field

from auth.principal import Role, Scope
from model.serving.prediction import Prediction


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


# Beside an `int`, behind its bounds: as JSON Schema has it, 3.0 is one, true and "3" are none.
JSON_NUMBER = BeforeValidator(_number)


class Problem(BaseModel):
    """RFC 9457 problem document; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class OAuthProblem(BaseModel):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str


class Readiness(BaseModel):
    status: str = Field(description="ready, not ready, or stopping")
    checks: dict[str, str] = Field(description="each dependency's state")


class Token(BaseModel):
    """RFC 6749, section 5.1."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105  (RFC 6750's word)
    expires_in: int = Field(description="seconds")
    refresh_token: str | None = None
    scope: str


class Introspection(BaseModel):
    """RFC 7662, section 2.2. Nothing but `active` for a token that does not count."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: str | None = None
    exp: int | None = Field(None, description="seconds since 1970")
    sub: str | None = None
    aud: str | None = None
    iss: str | None = None
    jti: str | None = None


class Me(BaseModel):
    subject: str
    name: str
    role: Role | None
    scopes: list[Scope]
    expires_at: datetime | None


class LandUse(BaseModel):
    """The answer of the research team's script, and what the gateway adds to it."""

    prediction: int = Field(description="index of the class")
    prediction_probability: list[list[float]] = Field(description="one list, of one probability a class")
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


class LabelProbability(BaseModel):
    label: str
    probability: float


class ImageResponse(BaseModel):
    sha256: str
    format: str
    width: int
    height: int


class ModelResponse(BaseModel):
    name: str
    version: str
    digest: str = Field(description="SHA-256 of the file that is served")


class PredictionResponse(BaseModel):
    id: str = Field(description="UUIDv7")
    label: str
    confidence: float
    predictions: list[LabelProbability] = Field(description="the `top_k` most probable, best first")
    model: ModelResponse
    image: ImageResponse
    timing: dict[str, float] = Field(description="milliseconds by stage")

    @classmethod
    def of(cls, prediction: Prediction, prediction_id: str, top_k: int) -> PredictionResponse:
        info, image = prediction.model, prediction.image
        return cls(
            id=prediction_id,
            label=prediction.label,
            confidence=prediction.confidence,
            predictions=[LabelProbability(label=label, probability=p) for label, p in prediction.top(top_k)],
            model=ModelResponse(name=info.name, version=info.version, digest=info.digest),
            image=ImageResponse(sha256=image.sha256, format=image.format, width=image.width, height=image.height),
            timing={stage: round(seconds * 1000, 3) for stage, seconds in prediction.timing.items()},
        )

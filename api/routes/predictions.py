"""The prediction routes, which parse requests for the pipeline and format its results.

FastAPI takes a measurable part of a request's time for each dependency, so the endpoints take the pipeline directly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query
from msgspec.structs import replace
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from api.deps import get_pipeline
from api.http.problems import document_problems
from api.http.uploads import (
    MULTIPART_BODY,
    MULTIPART_OR_RAW_BODY,
    get_declared_length,
    read_image,
    read_multipart,
    wait_for_disconnect,
)
from api.prediction.request import PredictionRequest, RecordedPrediction
from api.routes.negotiation import choose_media_type
from api.routes.recorded.recorded_route import (
    RecordedRoute,
    authorize_prediction,
    describe_origin,
    read_authenticated,
    recorded_by_pipeline,
)
from api.schemas.predictions import LandUse, PredictionResponse
from api.schemas.usage import DryRunResponse
from auth.principal import Principal
from model.explanation.explanation import ExplanationRequest
from monitoring.tracing.tracer import RequestTrace

TIMEOUT_HEADER = "X-Request-Timeout"
_COVERAGE = "add `prediction_set`, the labels that contain the true one with this probability"
_EXPLAIN = "`true` adds `explanation`, a map of the parts of the image that support the label; or the class to explain"
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")
_JSON, _PNG = "application/json", "image/png"
_NEGOTIATED = {"Vary": "Accept"}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The prediction. As image/png: the explanation over the image, with the prediction in headers",
        "content": {_PNG: {"schema": {"type": "string", "format": "binary"}}},
    }
}
_PROBLEMS = document_problems(400, 401, 403, 409, 413, 415, 422, 429, 503, 504)

Predictor = Annotated[Principal, Depends(authorize_prediction)]
Timeout = Annotated[
    float | None,
    Header(
        alias=TIMEOUT_HEADER,
        ge=0.001,
        allow_inf_nan=False,
        description="seconds after which the client no longer needs the response",
    ),
]


router = APIRouter(tags=["predictions"], responses=_PROBLEMS, route_class=RecordedRoute)


@router.post(
    "/v1/predictions",
    openapi_extra=MULTIPART_OR_RAW_BODY,
    response_model=PredictionResponse | DryRunResponse,
    responses=_PICTURE,
)
async def create_prediction(
    request: Request,
    principal: Predictor,
    top_k: Annotated[int, Query(ge=1, le=100)] = 5,
    coverage: Annotated[float | None, Query(ge=0.5, lt=1, allow_inf_nan=False, description=_COVERAGE)] = None,
    explain: Annotated[str, Query(max_length=200, description=_EXPLAIN)] = "false",
    dry_run: bool = False,
    timeout_s: Timeout = None,
) -> Response:
    """Classify the land use in an aerial image.

    The response lists the `top_k` most probable labels. With `coverage` it adds a prediction set, with `explain` a
    map of the parts of the image that support the label. With `Accept: image/png` the response is that map, drawn
    over the image. With `dry_run` it only says what the request would cost.
    """
    as_picture = choose_media_type(request.headers.get("accept", ""), (_JSON, _PNG)) == _PNG and not dry_run
    with recorded_by_pipeline():
        prediction_request = replace(
            _build_request(request, principal, read_image, timeout_s),
            with_set=coverage is not None,
            explanation=_parse_explain(explain, as_picture),
        )
        if dry_run:
            return _write(DryRunResponse.of(await get_pipeline(request).dry_run(prediction_request)))
        recorded = await get_pipeline(request).run(prediction_request)
        if as_picture:
            return _write_picture(recorded)
        return _write(PredictionResponse.describe(recorded.prediction, recorded.id, top_k, coverage), _NEGOTIATED)


@router.post("/predict-land-use", openapi_extra=MULTIPART_BODY, response_model=LandUse)
@router.post("/predict-land-use/", openapi_extra=MULTIPART_BODY, include_in_schema=False)
async def predict_land_use(request: Request, principal: Predictor, timeout_s: Timeout = None) -> Response:
    """Classify the land use in an aerial image; the response has the form of the research team's script."""
    with recorded_by_pipeline():
        recorded = await get_pipeline(request).run(_build_request(request, principal, read_multipart, timeout_s))
        return _write(LandUse.of(recorded.prediction, recorded.id))


def _build_request(
    request: Request,
    principal: Principal,
    read: Callable[[Request], Awaitable[bytes]],
    timeout_s: float | None,
) -> PredictionRequest[bytes]:
    trace: RequestTrace | None = request.scope["state"].get("trace")
    return PredictionRequest(
        origin=describe_origin(request, principal),
        read_body=partial(read_authenticated, read, request),
        content_length=get_declared_length(request),
        timeout_s=timeout_s,
        wait_for_disconnect=partial(wait_for_disconnect, request),
        on_stage=trace.add_stage if trace else None,
    )


def _parse_explain(value: str, as_picture: bool) -> ExplanationRequest | None:
    """Return what the parameter `explain` requests. Without it, a picture explains the best class."""
    name = value.lower()
    if name in _FALSE and not as_picture:
        return None
    return ExplanationRequest(None if name in _FALSE + _TRUE else value, overlay=as_picture)


def _write_picture(recorded: RecordedPrediction) -> Response:
    """Respond with the overlay; headers describe the prediction. Labels are encoded: they may have any characters."""
    prediction = recorded.prediction
    explanation = prediction.explanation
    assert explanation is not None  # noqa: S101  (it was requested)
    headers = {
        "X-Prediction-ID": recorded.id,
        "X-Prediction-Label": quote(prediction.label),
        "X-Prediction-Confidence": f"{prediction.confidence:.6f}",
        "X-Prediction-Abstained": "false" if prediction.reason is None else "true",
        **({} if prediction.reason is None else {"X-Prediction-Reason": prediction.reason}),
        "X-Explained-Label": quote(explanation.label),
        "Link": f'</v1/predictions/{recorded.id}>; rel="describedby"',
        **_NEGOTIATED,
    }
    return Response(explanation.overlay, media_type=_PNG, headers=headers)


def _write(body: BaseModel | Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Serialise the body directly, because FastAPI would validate again what was just built."""
    return Response(to_json(body), media_type=_JSON, headers=headers)

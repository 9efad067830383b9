"""The prediction routes, which parse requests for the pipeline and shape its results.

FastAPI takes a measurable part of a request's time for each dependency, so the endpoints take the pipeline directly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.deps import Caller, get_pipeline
from api.http.problems import document_problems
from api.http.uploads import (
    MULTIPART_BODY,
    MULTIPART_OR_RAW_BODY,
    get_declared_length,
    read_image,
    read_multipart,
    wait_for_disconnect,
)
from api.prediction.request import PredictionRequest
from api.rate_limits.limiter import PREDICT_LIMIT, CallerLimits
from api.routes.recorded_route import RecordedRoute, describe_origin, recorded_by_pipeline
from api.schemas.predictions import LandUse, PredictionResponse
from api.schemas.usage import DryRunResponse
from auth.principal import Principal, Scope

TIMEOUT_HEADER = "X-Request-Timeout"
_COVERAGE = "add `prediction_set`, the labels that contain the true one with this probability"
_PROBLEMS = document_problems(400, 401, 403, 413, 415, 422, 429, 503, 504)

Predictor = Annotated[Principal, Depends(Caller(Scope.PREDICT, own_limit=True))]
Timeout = Annotated[
    float | None,
    Header(
        alias=TIMEOUT_HEADER,
        ge=0.001,
        allow_inf_nan=False,
        description="seconds after which the client no longer needs the response",
    ),
]


def predictions_router(limits: CallerLimits, rate: str) -> APIRouter:
    """The prediction routes. A principal may send `rate` requests to all of them together, an API key its own rate."""
    router = APIRouter(tags=["predictions"], responses=_PROBLEMS, route_class=RecordedRoute)

    @router.post(
        "/v1/predictions", openapi_extra=MULTIPART_OR_RAW_BODY, response_model=PredictionResponse | DryRunResponse
    )
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def create_prediction(
        request: Request,
        principal: Predictor,
        top_k: Annotated[int, Query(ge=1, le=100)] = 5,
        coverage: Annotated[float | None, Query(ge=0.5, lt=1, allow_inf_nan=False, description=_COVERAGE)] = None,
        dry_run: bool = False,
        timeout_s: Timeout = None,
    ) -> Response:
        """Classify the land use in an aerial image.

        The response lists the `top_k` most probable labels. With `coverage` it adds a prediction set. With `dry_run` it
        only says what the request would cost.
        """
        with recorded_by_pipeline():
            prediction_request = _build_request(
                request, principal, read_image, timeout_s, with_set=coverage is not None
            )
            if dry_run:
                return _write(DryRunResponse.of(await get_pipeline(request).dry_run(prediction_request)))
            recorded = await get_pipeline(request).run(prediction_request)
            return _write(PredictionResponse.of(recorded.prediction, recorded.id, top_k, coverage))

    @router.post("/predict-land-use", openapi_extra=MULTIPART_BODY, response_model=LandUse)
    @router.post("/predict-land-use/", openapi_extra=MULTIPART_BODY, include_in_schema=False)
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def predict_land_use(request: Request, principal: Predictor, timeout_s: Timeout = None) -> Response:
        """Classify the land use in an aerial image; the response has the form of the research team's script."""
        with recorded_by_pipeline():
            recorded = await get_pipeline(request).run(_build_request(request, principal, read_multipart, timeout_s))
            return _write(LandUse.of(recorded.prediction, recorded.id))

    return router


def _build_request(
    request: Request,
    principal: Principal,
    read: Callable[[Request], Awaitable[bytes]],
    timeout_s: float | None,
    *,
    with_set: bool = False,
) -> PredictionRequest:
    return PredictionRequest(
        origin=describe_origin(request, principal),
        read_body=partial(read, request),
        content_length=get_declared_length(request),
        timeout_s=timeout_s,
        with_set=with_set,
        wait_for_disconnect=partial(wait_for_disconnect, request),
    )


def _write(body: BaseModel) -> Response:
    """Serialise the body directly: FastAPI would validate once more what was just built."""
    return Response(body.model_dump_json(), media_type="application/json")

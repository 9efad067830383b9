"""Predictions: principal, limit, body, decode, infer, answer, in this order."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from uuid_utils import uuid7

from api.deps import Rooms, State, requires
from api.limits import PREDICT_LIMIT, CallerLimits
from api.quotas import charged, dry_run
from api.schemas import LandUse, PredictionAnswer, Problem
from api.uploads import MULTIPART_BODY, MULTIPART_OR_RAW_BODY, read_image, read_multipart
from api.usage_schemas import DryRunAnswer
from auth.principal import Scope
from model.errors import Overloaded
from model.service import Prediction

_T = TypeVar("_T")
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}}
    for status in (400, 401, 403, 413, 415, 422, 429, 503)
}


def predictions_router(limits: CallerLimits, rate: str) -> APIRouter:
    """Both prediction routes; one principal has `rate` over them together, and an API key its own rate."""
    allowed = [Depends(requires(Scope.PREDICT)), Depends(limits.own_rate)]
    router = APIRouter(tags=["predictions"], responses=_REFUSALS, dependencies=allowed)

    @router.post("/predict-land-use", openapi_extra=MULTIPART_BODY)
    @router.post("/predict-land-use/", openapi_extra=MULTIPART_BODY, include_in_schema=False)
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def predict_land_use(request: Request, rooms: Rooms) -> LandUse:
        """The land use of an aerial image, in the form that the first clients were written for."""
        prediction = await _predict(request, rooms, await read_multipart(request))
        return LandUse.of(prediction, str(uuid7()))

    @router.post("/v1/predictions", openapi_extra=MULTIPART_OR_RAW_BODY)
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def create_prediction(
        request: Request,
        rooms: Rooms,
        top_k: Annotated[int, Query(ge=1, le=100)] = 5,
        dry: Annotated[bool, Query(alias="dry_run")] = False,
    ) -> PredictionAnswer | DryRunAnswer:
        """The land use of an aerial image, with the `top_k` most probable labels; with `dry_run` only what it costs."""
        data = await read_image(request)
        if dry:
            pixels = await _counting_shed(rooms, rooms["service"].measure(data))
            return await dry_run(rooms, request.state.principal, pixels)
        prediction = await _predict(request, rooms, data)
        return PredictionAnswer.of(prediction, str(uuid7()), top_k)

    return router


async def _predict(request: Request, rooms: State, data: bytes) -> Prediction:
    metrics, charge = rooms["metrics"], partial(charged, request, rooms)
    prediction = await _counting_shed(rooms, rooms["service"].predict(data, charge))
    metrics.predictions.labels(prediction.model.full_name, prediction.label).inc()
    metrics.confidence.observe(prediction.confidence)
    return prediction


async def _counting_shed(rooms: State, work: Awaitable[_T]) -> _T:
    try:
        return await work
    except Overloaded:
        rooms["metrics"].shed.labels("queue_full").inc()
        raise

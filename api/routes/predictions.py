"""Predictions: principal, limit, body, decode, infer, answer, in this order."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from uuid_utils import uuid7

from api.deps import Rooms, State, requires
from api.limits import PREDICT_LIMIT, CallerLimits
from api.schemas import LandUse, PredictionAnswer, Problem
from api.uploads import MULTIPART_BODY, MULTIPART_OR_RAW_BODY, read_image, read_multipart
from auth.principal import Scope
from model.errors import Overloaded
from model.service import Prediction

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}}
    for status in (400, 401, 403, 413, 415, 422, 429, 503)
}


def predictions_router(limits: CallerLimits, rate: str) -> APIRouter:
    """Both prediction routes; one principal has `rate` over them together."""
    router = APIRouter(tags=["predictions"], responses=_REFUSALS, dependencies=[Depends(requires(Scope.PREDICT))])

    @router.post("/predict-land-use", openapi_extra=MULTIPART_BODY)
    @router.post("/predict-land-use/", openapi_extra=MULTIPART_BODY, include_in_schema=False)
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def predict_land_use(request: Request, rooms: Rooms) -> LandUse:
        """The land use of an aerial image, in the form that the first clients were written for."""
        prediction = await _predict(rooms, await read_multipart(request))
        return LandUse.of(prediction, str(uuid7()))

    @router.post("/v1/predictions", openapi_extra=MULTIPART_OR_RAW_BODY)
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def create_prediction(
        request: Request, rooms: Rooms, top_k: Annotated[int, Query(ge=1, le=100)] = 5
    ) -> PredictionAnswer:
        """The land use of an aerial image, with the `top_k` most probable labels."""
        prediction = await _predict(rooms, await read_image(request))
        return PredictionAnswer.of(prediction, str(uuid7()), top_k)

    return router


async def _predict(rooms: State, data: bytes) -> Prediction:
    metrics = rooms["metrics"]
    try:
        prediction = await rooms["service"].predict(data)
    except Overloaded:
        metrics.shed.labels("queue_full").inc()
        raise
    metrics.predictions.labels(prediction.model.full_name, prediction.label).inc()
    metrics.confidence.observe(prediction.confidence)
    return prediction

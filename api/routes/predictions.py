"""Predictions: principal, limit, body, quota, decode, infer, ledger, answer, in this order."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.deps import Caller, State, get_services
from api.http.uploads import MULTIPART_BODY, MULTIPART_OR_RAW_BODY, read_image, read_multipart, while_connected
from api.prediction.admission import TIMEOUT_HEADER, announced_bytes, before, compute_deadline
from api.prediction.quotas import dry_run, report_refusal
from api.prediction.recording import RecordedRoute, answered, encode_charge
from api.rate_limits.limiter import PREDICT_LIMIT, CallerLimits
from api.schemas.predictions import LandUse, PredictionResponse, Problem
from api.schemas.usage import DryRunResponse
from auth.errors import QuotaExceeded
from auth.principal import Scope
from auth.quotas.tallies import QuotaCharge
from model.errors import DeadlineExceeded, MemoryFull, Overloaded
from model.serving.prediction import Prediction
from model.serving.service import Admit

Reader = Callable[[Request], Awaitable[bytes]]
Timeout = Annotated[
    float | None,
    Header(alias=TIMEOUT_HEADER, ge=0.001, allow_inf_nan=False, description="seconds; an answer later is of no use"),
]
_SHED: dict[type[Exception], str] = {
    Overloaded: "queue_full",
    MemoryFull: "memory",
    DeadlineExceeded: "deadline",
    ClientDisconnect: "caller_left",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}}
    for status in (400, 401, 403, 413, 415, 422, 429, 503, 504)
}


def predictions_router(limits: CallerLimits, rate: str) -> APIRouter:
    """Both prediction routes; one principal has `rate` over them together, and an API key its own rate."""
    allowed = [Depends(Caller(Scope.PREDICT))]
    router = APIRouter(tags=["predictions"], responses=_REFUSALS, dependencies=allowed, route_class=RecordedRoute)

    @router.post(
        "/v1/predictions", openapi_extra=MULTIPART_OR_RAW_BODY, response_model=PredictionResponse | DryRunResponse
    )
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def create_prediction(
        request: Request,
        top_k: Annotated[int, Query(ge=1, le=100)] = 5,
        dry: Annotated[bool, Query(alias="dry_run")] = False,
        timeout_s: Timeout = None,
    ) -> Response:
        """The land use of an aerial image, with the `top_k` most probable labels; with `dry_run` only what it costs."""
        rooms = get_services(request)
        if dry:
            subject, deadline = request.state.principal.subject, compute_deadline(rooms, timeout_s)
            async with rooms["memory"].reserved_for(announced_bytes(request), subject, deadline):
                needs = await rooms["service"].measure(await before(deadline, read_image(request)))
            return _written(await dry_run(rooms, request.state.principal, needs.pixels))
        return _written(PredictionResponse.of(*await _predict(request, rooms, read_image, timeout_s), top_k))

    @router.post("/predict-land-use", openapi_extra=MULTIPART_BODY, response_model=LandUse)
    @router.post("/predict-land-use/", openapi_extra=MULTIPART_BODY, include_in_schema=False)
    @limits.per_principal(rate, PREDICT_LIMIT)
    async def predict_land_use(request: Request, timeout_s: Timeout = None) -> Response:
        """The land use of an aerial image, in the form that the first clients were written for."""
        return _written(LandUse.of(*await _predict(request, get_services(request), read_multipart, timeout_s)))

    return router


def _written(answer: BaseModel) -> Response:
    """The answer as it is: FastAPI would check once more what has just been made."""
    return Response(answer.model_dump_json(), media_type="application/json")


async def _predict(request: Request, rooms: State, read: Reader, timeout_s: float | None) -> tuple[Prediction, str]:
    """The prediction and its id, once it is on the record and paid for."""
    metrics, owed = rooms["metrics"], list[QuotaCharge]()

    async def admit(pixels: int) -> None:
        owed.append(await rooms["meter"].admit(request.state.principal, pixels))

    try:
        prediction = await _classified(request, rooms, read, admit, timeout_s)
        prediction_id = await _recorded(request, rooms, prediction, owed[0])
    except QuotaExceeded as error:
        await report_refusal(error, request, rooms)
        raise
    except (Overloaded, MemoryFull, DeadlineExceeded, ClientDisconnect) as error:
        metrics.shed.labels(_SHED[type(error)]).inc()
        raise
    metrics.predictions.labels(prediction.model.full_name, prediction.label).inc()
    metrics.confidence.observe(prediction.confidence)
    return prediction, prediction_id


async def _classified(
    request: Request, rooms: State, read: Reader, admit: Admit, timeout_s: float | None
) -> Prediction:
    service, caller, deadline = rooms["service"], request.state.principal.subject, compute_deadline(rooms, timeout_s)
    async with rooms["memory"].reserved_for(announced_bytes(request), caller, deadline) as reservation:
        data = await before(deadline, read(request))
        work = service.predict(data, admit, reservation=reservation, caller=caller, deadline=deadline)
        return await (while_connected(request, work) if service.in_use else work)


async def _recorded(request: Request, rooms: State, prediction: Prediction, owed: QuotaCharge) -> str:
    request.state.recorded = True
    started = time.perf_counter()
    try:
        # While others wait for a core, one transaction for two answers brings all of them forward.
        crowded = rooms["service"].queue.waiting > 0
        return await rooms["ledger"].record(answered(request, prediction), encode_charge(owed), has_time=crowded)
    finally:
        rooms["metrics"].stage_seconds.labels("commit").observe(time.perf_counter() - started)

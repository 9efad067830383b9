"""Predictions on the record: what is written of each, and who pays for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from slowapi.errors import RateLimitExceeded
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.http.errors import CLIENT_LEFT, find_status
from api.http.uploads import check_announced
from api.prediction.admission import TIMEOUT_HEADER, check_capacity
from auth.principal import Principal
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import QuotaCharge
from model.serving.prediction import Prediction
from model.serving.runtime import runtime_facts
from monitoring.ledger.journal import Charge, Refusal

VERSION = 1


class QuotaChargeRecorder:
    """The ledger's till: quotas are counted in the transactions that record what they pay for."""

    def __init__(self, meter: UsageMeter) -> None:
        self._meter = meter

    def charge(self, connection: Connection, charges: Sequence[Charge]) -> Sequence[Refusal | None]:
        refusals = self._meter.charge(connection, [entry_of(charge) for charge in charges])
        return [Refusal(error, HTTPStatus.TOO_MANY_REQUESTS, error.code) if error else None for error in refusals]

    def charge_deferred(self, connection: Connection, charges: Sequence[Charge]) -> None:
        self._meter.charge_deferred(connection, [entry_of(charge) for charge in charges])

    def charge_later(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            self._meter.charge_later(entry_of(charge))


def encode_charge(entry: QuotaCharge) -> Charge:
    return {"owners": entry.owners, "month": entry.month, "requests": entry.requests, "pixels": entry.pixels}


def entry_of(charge: Charge) -> QuotaCharge:
    return QuotaCharge(tuple(charge["owners"]), charge["month"], charge["requests"], charge["pixels"])


def answered(request: Request, prediction: Prediction) -> dict[str, Any]:
    """What the ledger keeps of an answer, ready for JSON; probabilities at full precision, times in microseconds."""
    info, image = prediction.model, prediction.image
    return {
        **_request_facts(request, HTTPStatus.OK, None),
        "model": {"name": info.name, "version": info.version, "digest": info.digest, "backend": info.backend},
        "preprocessing": info.input_spec.preprocessing,
        "runtime": runtime_facts(),
        "image": {
            "sha256": image.sha256,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "bytes": image.bytes,
        },
        "output": {
            "index": prediction.index,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "probabilities": dict(zip(info.classes, prediction.probabilities.tolist(), strict=True)),
        },
        "timing_us": {stage: round(seconds * 1e6) for stage, seconds in prediction.timing.items()},
    }


def refused(request: Request, status: int, code: str) -> dict[str, Any]:
    """What the ledger keeps of a request that got no prediction: nothing of the image."""
    nothing = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))
    return {**_request_facts(request, status, code), **nothing, "timing_us": {}}


def _request_facts(request: Request, status: int, code: str | None) -> dict[str, Any]:
    principal: Principal = request.state.principal
    return {
        "v": VERSION,
        "request_id": request.state.request_id,
        "route": request.scope["route"].path,
        "principal": principal.subject,
        "key": principal.key_id,
        "status": int(status),
        "code": code,
        "count": 1,
    }


class RecordedRoute(APIRoute):
    """A route of predictions: each request of a known caller that gets none is recorded with its code.

    Whoever may not predict, or would find no place, is turned away first.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_recorded(request: Request) -> Response:
            try:
                await check_capacity(request)
                check_announced(request)
                if _has_options(request):
                    return await handle(request)
                # What FastAPI would resolve is known: the caller was judged, and all parameters have their defaults.
                response: Response = await self.endpoint(request=request)
                return response
            except Exception as error:
                # A refused charge is recorded where it is judged, and what the ledger refuses cannot be.
                if hasattr(request.state, "principal") and not getattr(request.state, "recorded", False):
                    request.state.ledger.refuse(refused(request, *_verdict(error)))
                raise

        return handle_recorded


def _has_options(request: Request) -> bool:
    return bool(request.scope["query_string"]) or TIMEOUT_HEADER in request.headers


def _verdict(error: Exception) -> tuple[int, str]:
    """The status and the code that the error is answered with."""
    status = find_status(error)
    if status is not None:
        code: str = error.code  # type: ignore[attr-defined]  # each room's base declares it
        return status, code
    match error:
        case ClientDisconnect():
            return CLIENT_LEFT, "client_left"
        case RateLimitExceeded():
            return HTTPStatus.TOO_MANY_REQUESTS, "rate_limited"
        case RequestValidationError():
            return HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"
        case HTTPException():
            return error.status_code, "bad_request"
    return HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error"

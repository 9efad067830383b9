"""Maps errors that end a prediction request to what the ledger records: the status and code of the response."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from slowapi.errors import RateLimitExceeded
from starlette.exceptions import HTTPException

from api.errors import ShuttingDown
from api.http.errors import find_status
from api.http.middleware import CLIENT_LEFT
from api.prediction.errors import ClientDisconnected


def classify_error(error: BaseException) -> tuple[int, str]:
    """Return the status and the stable code of the response to `error`."""
    if isinstance(error, asyncio.CancelledError):
        error = ShuttingDown()
    status = find_status(error)
    if status is not None:
        code: str = error.code  # type: ignore[attr-defined]  # every mapped class declares it
        return status, code
    match error:
        case ClientDisconnected():
            return CLIENT_LEFT, error.code
        case RateLimitExceeded():
            return HTTPStatus.TOO_MANY_REQUESTS, "rate_limited"
        case RequestValidationError():
            return HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"
        case HTTPException():
            return error.status_code, "bad_request"
    return HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error"

"""From error classes to answers: one table, one shape (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import auth.errors as auth
import model.errors as model
import monitoring.errors as monitoring
import storage.errors as storage
from api.errors import (
    BadForm,
    BadRequest,
    BodyTooLarge,
    CommandFailed,
    HeadTooLarge,
    HostNotAllowed,
    MissingFile,
    RequestTooSlow,
    SettingsError,
    UnauthorizedClient,
    UnsupportedBody,
    UnsupportedGrant,
)
from api.http.openapi import allowed_methods

STATUS_BY_ERROR: Mapping[type[Exception], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    RequestTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HostNotAllowed: HTTPStatus.MISDIRECTED_REQUEST,
    UnsupportedBody: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    MissingFile: HTTPStatus.UNPROCESSABLE_ENTITY,
    BadForm: HTTPStatus.BAD_REQUEST,
    auth.MissingCredentials: HTTPStatus.UNAUTHORIZED,
    auth.InvalidToken: HTTPStatus.UNAUTHORIZED,
    auth.InsufficientScope: HTTPStatus.FORBIDDEN,
    storage.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    auth.HashingBusy: HTTPStatus.TOO_MANY_REQUESTS,
    auth.TooManyGuesses: HTTPStatus.TOO_MANY_REQUESTS,
    auth.IssuerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.AuditUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.LedgerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.LedgerFull: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.PredictionNotFound: HTTPStatus.NOT_FOUND,
    auth.InvalidClient: HTTPStatus.UNAUTHORIZED,
    auth.KeyNotFound: HTTPStatus.NOT_FOUND,
    auth.KeyEnded: HTTPStatus.CONFLICT,
    auth.KeyBound: HTTPStatus.FORBIDDEN,
    auth.TooManyKeys: HTTPStatus.CONFLICT,
    auth.QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    auth.NoAccount: HTTPStatus.FORBIDDEN,
    auth.BadCredentials: HTTPStatus.FORBIDDEN,
    auth.BadCode: HTTPStatus.FORBIDDEN,
    auth.TotpConflict: HTTPStatus.CONFLICT,
    auth.UserExists: HTTPStatus.CONFLICT,
    auth.UserNotFound: HTTPStatus.NOT_FOUND,
    auth.BadUserName: HTTPStatus.UNPROCESSABLE_ENTITY,
    auth.PasswordRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    auth.LastAdmin: HTTPStatus.CONFLICT,
    model.EmptyImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    model.UnsupportedImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    model.ImageTooManyBytes: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    model.ImageTooManyPixels: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    model.ImageTooLargeHere: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    model.UnsupportedPixelFormat: HTTPStatus.UNPROCESSABLE_ENTITY,
    model.CorruptImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    model.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    model.MemoryFull: HTTPStatus.SERVICE_UNAVAILABLE,
    model.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
}

# Raised by commands and at start-up, where the answer is one line on standard error.
NEVER_OVER_HTTP: frozenset[type[Exception]] = frozenset(
    {
        SettingsError,
        CommandFailed,
        auth.ClientExists,
        auth.ClientNotFound,
        auth.WeakSigningKey,
        monitoring.BadLedgerKey,
        monitoring.BadExport,
        monitoring.LedgerInUse,
        monitoring.LedgerDamaged,
        model.ArtefactError,
        model.BackendURLError,
        model.DatasetError,
        model.KerasMissing,
        model.KerasProcessFailed,
        model.ExportRefused,
        model.ReplayImpossible,
    }
)
# Answered in OAuth's own form by the token endpoint (RFC 6749, section 5.2).
OAUTH_ERRORS: Mapping[type[Exception], str] = {
    auth.BadCredentials: "invalid_grant",
    auth.BadCode: "invalid_grant",
    auth.UnknownScope: "invalid_scope",
    auth.InvalidGrant: "invalid_grant",
    auth.InvalidClient: "invalid_client",
    UnauthorizedClient: "unauthorized_client",
    auth.InvalidToken: "invalid_token",
    BadForm: "invalid_request",
    RequestTooSlow: "invalid_request",
    UnsupportedGrant: "unsupported_grant_type",
    auth.HashingBusy: "temporarily_unavailable",
    auth.TooManyGuesses: "temporarily_unavailable",
    storage.DatabaseUnavailable: "temporarily_unavailable",
    auth.IssuerUnavailable: "temporarily_unavailable",
    monitoring.AuditUnavailable: "temporarily_unavailable",
}

CLIENT_LEFT = 499  # no answer was sent; the number is nginx's for this
_PHRASE_CODES = {HTTPStatus.NOT_FOUND: "not_found", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}
_BEARER = 'Bearer realm="atalaya"'


def problem(
    status: HTTPStatus, code: str, detail: str, request_id: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """An RFC 9457 problem document; `type` is a URN of the stable code."""
    body = {
        "type": f"urn:atalaya:problem:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **more,
    }
    return JSONResponse(body, status.value, headers, media_type="application/problem+json")


def find_status(error: Exception) -> HTTPStatus | None:
    """The status of the nearest mapped class, None for one that no user can cause."""
    return next((STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR), None)


def install_handlers(app: FastAPI) -> None:
    """Map every error a user can cause; whatever else escapes is the Observe middleware's to answer."""
    for kind in STATUS_BY_ERROR:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _refused(request: Request, error: Exception) -> Response:
    status = find_status(error)
    assert status is not None  # noqa: S101  (installed for mapped classes alone)
    code: str = error.code  # type: ignore[attr-defined]  # each room's base declares it
    return answer(request, status, code, str(error), build_error_headers(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    fields = [{"field": ".".join(map(str, item["loc"])), "problem": item["msg"]} for item in error.errors()]
    detail = f"{fields[0]['field']}: {fields[0]['problem']}."
    return answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, errors=fields)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, BodyTooLarge | RequestTooSlow):  # FastAPI wraps what reading a document raises
        return await _refused(request, error.__cause__)
    status = HTTPStatus(error.status_code)
    if status not in _PHRASE_CODES:
        return answer(request, status, "bad_request", "The body cannot be read. Send a valid document.", error.headers)
    detail = f"{status.phrase}: {request.method} is not served here."
    headers = {"Allow": allowed_methods(request)} if status is HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return answer(request, status, _PHRASE_CODES[status], detail, headers)


def answer(
    request: Request,
    status: HTTPStatus,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document for this request; its code goes to the log line, too."""
    request.state.problem_code = code
    return problem(status, code, detail, request.state.request_id, headers, **more)


def build_error_headers(error: Exception) -> dict[str, str]:
    """The headers that belong to an error: a challenge (RFC 6750, RFC 7617) or how long to wait."""
    challenge = _challenge(error)
    if challenge is not None:
        return {"WWW-Authenticate": challenge}
    match error:
        case RequestTooSlow() | BodyTooLarge():
            return {"Connection": "close"}
        case (
            model.Overloaded()
            | model.MemoryFull()
            | auth.QuotaExceeded()
            | auth.HashingBusy()
            | auth.TooManyGuesses()
            | auth.IssuerUnavailable()
            | monitoring.LedgerFull()
        ):
            return {"Retry-After": str(error.retry_after_s)}
        case storage.DatabaseUnavailable() | monitoring.AuditUnavailable() | monitoring.LedgerUnavailable():
            return {"Retry-After": "1"}
    return {}


def _challenge(error: Exception) -> str | None:
    match error:
        case auth.MissingCredentials():
            return _BEARER
        case auth.InvalidClient():
            return 'Basic realm="atalaya"'
        case auth.InvalidToken():
            return f'{_BEARER}, error="invalid_token"'
        case auth.InsufficientScope():
            return f'{_BEARER}, error="insufficient_scope", scope="{error.scope}"'
    return None

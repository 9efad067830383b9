"""Turns errors into responses: the table from classes to statuses, and FastAPI's handlers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

import auth.errors as auth
import model.errors as model
import monitoring.errors as monitoring
import storage.errors as storage
from api.errors import (
    BadForm,
    BadInferRequest,
    BadRequest,
    BodyTooLarge,
    CommandFailed,
    DatabaseMissing,
    HeadTooLarge,
    HostNotAllowed,
    MissingFile,
    ModelNotServed,
    NoLabelledImages,
    RegistryMissing,
    RequestTooSlow,
    SecretsUnavailable,
    SettingsError,
    ShuttingDown,
    UnsupportedBody,
    UnsupportedEncoding,
    VersionRejected,
)
from api.http.problems import respond_with_problem
from api.schemas.fields import describe_invalid, name_location
from model.backends.oip.errors import EngineFailed, EngineMismatch, EngineUnavailable
from model.backends.prepared.errors import PreparationFailed
from model.registry.errors import (
    AliasesElsewhere,
    AliasMoved,
    AliasUnchanged,
    InvalidName,
    MoveUnrecorded,
    RegistryAccessDenied,
    RegistryUnavailable,
    UnknownAlias,
    UnknownModel,
    UnknownVersion,
    VersionExists,
)
from model.signing.errors import ArtefactChanged, ArtefactUnsigned, SignatureInvalid, SigningKeyRejected
from storage.backups.errors import BackupError
from storage.images.errors import ImageStoreError

STATUS_BY_ERROR: Mapping[type[Exception], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    RequestTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    ShuttingDown: HTTPStatus.SERVICE_UNAVAILABLE,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HostNotAllowed: HTTPStatus.MISDIRECTED_REQUEST,
    UnsupportedBody: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnsupportedEncoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    MissingFile: HTTPStatus.UNPROCESSABLE_ENTITY,
    BadForm: HTTPStatus.BAD_REQUEST,
    BadInferRequest: HTTPStatus.BAD_REQUEST,
    ModelNotServed: HTTPStatus.NOT_FOUND,
    auth.MissingCredentials: HTTPStatus.UNAUTHORIZED,
    auth.InvalidToken: HTTPStatus.UNAUTHORIZED,
    auth.InsufficientScope: HTTPStatus.FORBIDDEN,
    storage.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    auth.HashingBusy: HTTPStatus.TOO_MANY_REQUESTS,
    auth.LoginThrottled: HTTPStatus.TOO_MANY_REQUESTS,
    auth.IssuerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.AuditUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.LedgerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.LedgerFull: HTTPStatus.SERVICE_UNAVAILABLE,
    monitoring.PredictionNotFound: HTTPStatus.NOT_FOUND,
    monitoring.PredictionErased: HTTPStatus.GONE,
    monitoring.PredictionPruned: HTTPStatus.GONE,
    monitoring.NothingToLabel: HTTPStatus.CONFLICT,
    monitoring.TooManyLabels: HTTPStatus.CONFLICT,
    monitoring.ModelNotRecorded: HTTPStatus.NOT_FOUND,
    auth.InvalidClient: HTTPStatus.UNAUTHORIZED,
    auth.KeyNotFound: HTTPStatus.NOT_FOUND,
    auth.KeyEnded: HTTPStatus.CONFLICT,
    auth.KeyBound: HTTPStatus.FORBIDDEN,
    auth.LoginRequired: HTTPStatus.FORBIDDEN,
    auth.TooManyKeys: HTTPStatus.CONFLICT,
    auth.QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    auth.NoAccount: HTTPStatus.FORBIDDEN,
    auth.SubjectBarred: HTTPStatus.FORBIDDEN,
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
    model.WrongTensorShape: HTTPStatus.BAD_REQUEST,
    model.NotAnAerialImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    model.LowConfidence: HTTPStatus.UNPROCESSABLE_ENTITY,
    model.SetsUnavailable: HTTPStatus.CONFLICT,
    model.ExplanationUnavailable: HTTPStatus.CONFLICT,
    model.UnknownLabel: HTTPStatus.UNPROCESSABLE_ENTITY,
    RegistryMissing: HTTPStatus.NOT_FOUND,
    UnknownModel: HTTPStatus.NOT_FOUND,
    UnknownVersion: HTTPStatus.NOT_FOUND,
    UnknownAlias: HTTPStatus.NOT_FOUND,
    InvalidName: HTTPStatus.UNPROCESSABLE_ENTITY,
    AliasesElsewhere: HTTPStatus.CONFLICT,
    AliasMoved: HTTPStatus.CONFLICT,
    AliasUnchanged: HTTPStatus.CONFLICT,
    VersionRejected: HTTPStatus.CONFLICT,
    MoveUnrecorded: HTTPStatus.SERVICE_UNAVAILABLE,
    RegistryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    model.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    model.MemoryFull: HTTPStatus.SERVICE_UNAVAILABLE,
    model.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    model.ModelReplaced: HTTPStatus.SERVICE_UNAVAILABLE,
    model.WorkerStuck: HTTPStatus.SERVICE_UNAVAILABLE,
    EngineUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    EngineFailed: HTTPStatus.BAD_GATEWAY,
}

# Raised only by commands and at start-up, which print one line on standard error.
NEVER_OVER_HTTP: frozenset[type[Exception]] = frozenset(
    {
        SettingsError,
        SecretsUnavailable,
        CommandFailed,
        NoLabelledImages,
        DatabaseMissing,
        auth.ClientExists,
        auth.ClientNotFound,
        auth.SubjectNotBarred,
        auth.WeakSigningKey,
        monitoring.BadLedgerKey,
        monitoring.LedgerKeyMissing,
        monitoring.BadExport,
        monitoring.AuditDamaged,
        monitoring.LedgerInUse,
        monitoring.LedgerDamaged,
        model.ArtefactError,
        model.ModelTooLarge,
        model.CandidateNotComparable,
        RegistryAccessDenied,
        VersionExists,
        ArtefactUnsigned,
        SignatureInvalid,
        ArtefactChanged,
        SigningKeyRejected,
        model.BackendURLError,
        PreparationFailed,
        ImageStoreError,
        BackupError,
        model.DatasetError,
        model.KerasMissing,
        model.EngineMissing,
        EngineMismatch,
        model.KerasProcessFailed,
        model.ExportRefused,
        model.ImportRefused,
        model.ReplayImpossible,
    }
)

_PHRASE_CODES = {HTTPStatus.NOT_FOUND: "not_found", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_MAX_REPORTED = 10  # how many validation errors of a request are reported
_BEARER = 'Bearer realm="atalaya"'


def find_status(error: BaseException) -> HTTPStatus | None:
    """Return the status of the nearest mapped class, or None for an error that no request can cause."""
    return next((STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR), None)


def install_handlers(app: FastAPI) -> None:
    """Handle every error that a request can cause; the Observe middleware handles the rest."""
    for kind in STATUS_BY_ERROR:
        app.add_exception_handler(kind, _handle_error)
    app.add_exception_handler(RequestValidationError, _handle_invalid_request)
    app.add_exception_handler(HTTPException, _handle_http_exception)


async def _handle_error(request: Request, error: Exception) -> Response:
    status = find_status(error)
    assert status is not None  # noqa: S101  (installed only for mapped classes)
    code: str = error.code  # type: ignore[attr-defined]  # each package's base class declares it
    return respond_with_problem(request.scope, status, code, str(error), build_error_headers(error))


async def _handle_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    if isinstance(error.body, bytes):  # FastAPI parses only a body that is declared as JSON
        status, detail = (
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the body as JSON, with `Content-Type: application/json`.",
        )
        return respond_with_problem(request.scope, status, UnsupportedBody.code, detail)
    problems = error.errors()
    fields = [{"field": name_location(item), "problem": describe_invalid(item)} for item in problems[:_MAX_REPORTED]]
    detail = f"{fields[0]['field']}: {fields[0]['problem']}."
    if len(problems) > _MAX_REPORTED:
        detail += f" There are {len(problems)} problems; `errors` has the first {_MAX_REPORTED}."
    return respond_with_problem(
        request.scope, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, errors=fields
    )


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    # FastAPI wraps errors that reading the body raises.
    if isinstance(error.__cause__, ClientDisconnect):
        raise error.__cause__  # Observe records it
    if isinstance(error.__cause__, BodyTooLarge | RequestTooSlow | UnsupportedEncoding | model.MemoryFull):
        return await _handle_error(request, error.__cause__)
    status = HTTPStatus(error.status_code)
    if status not in _PHRASE_CODES:
        detail = "The request body cannot be parsed. Send a valid document."
        return respond_with_problem(request.scope, status, "bad_request", detail, error.headers)
    detail = f"{status.phrase}: there is no route for {request.method} on this path."
    headers = {"Allow": _list_allowed_methods(request)} if status is HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return respond_with_problem(request.scope, status, _PHRASE_CODES[status], detail, headers)


def _list_allowed_methods(request: Request) -> str:
    """Return the value of `Allow` over all routes of the path. The router would list the methods of only one route."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    allowed = [name for name, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes)]
    if "GET" in allowed:
        allowed.insert(allowed.index("GET") + 1, "HEAD")
    return ", ".join(allowed)


def build_error_headers(error: Exception) -> dict[str, str]:
    """Return the headers of an error's response, such as a challenge (RFC 6750, RFC 7617) or Retry-After."""
    challenge = _build_challenge(error)
    if challenge is not None:
        return {"WWW-Authenticate": challenge}
    match error:
        case RequestTooSlow():
            return {"Connection": "close"}
        case UnsupportedEncoding():
            return {"Accept-Encoding": "identity"}  # RFC 9110, section 12.5.3
        case (
            model.Overloaded()
            | model.MemoryFull()
            | model.ModelReplaced()
            | model.WorkerStuck()
            | EngineUnavailable()
            | auth.QuotaExceeded()
            | auth.HashingBusy()
            | auth.LoginThrottled()
            | auth.IssuerUnavailable()
            | monitoring.LedgerFull()
        ):
            return {"Retry-After": str(error.retry_after_s)}
        case (
            storage.DatabaseUnavailable()
            | monitoring.AuditUnavailable()
            | monitoring.LedgerUnavailable()
            | MoveUnrecorded()
            | RegistryUnavailable()
        ):
            return {"Retry-After": "1"}
    return {}


def _build_challenge(error: Exception) -> str | None:
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

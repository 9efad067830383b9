"""Shared parts of the OAuth endpoints: form bodies, client authentication, and errors in the form of RFC 6749."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

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
    RequestTooSlow,
    UnauthorizedClient,
    UnsupportedEncoding,
    UnsupportedGrant,
)
from api.http.errors import build_error_headers, find_status
from api.http.oauth.credentials import read_header_once
from api.schemas.problems import OAuthProblem
from auth.clients import Client, ClientStore
from auth.tokens.access import FIRST_PARTY

_MAX_FORM_BYTES = 16 * 1024
_MAX_FIELDS = 16

# The `responses` of the OAuth endpoints: their errors have OAuth's own form, except for those of the HTTP parser.
OAUTH_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": OAuthProblem} for status in (400, 401, 403, 408, 413, 415, 421, 429, 503)
}
# What the OAuth endpoints send as `error` (RFC 6749, section 5.2).
OAUTH_ERRORS: Mapping[type[Exception], str] = {
    auth.BadCredentials: "invalid_grant",
    auth.BadCode: "invalid_grant",
    auth.UnknownScope: "invalid_scope",
    auth.InvalidGrant: "invalid_grant",
    auth.InvalidClient: "invalid_client",
    UnauthorizedClient: "unauthorized_client",
    auth.InvalidToken: "invalid_token",
    auth.SubjectBarred: "access_denied",
    BadForm: "invalid_request",
    BadRequest: "invalid_request",
    BodyTooLarge: "invalid_request",
    RequestTooSlow: "invalid_request",
    UnsupportedEncoding: "invalid_request",
    UnsupportedGrant: "unsupported_grant_type",
    auth.HashingBusy: "temporarily_unavailable",
    auth.LoginThrottled: "temporarily_unavailable",
    storage.DatabaseUnavailable: "temporarily_unavailable",
    auth.IssuerUnavailable: "temporarily_unavailable",
    monitoring.AuditUnavailable: "temporarily_unavailable",
    model.MemoryFull: "temporarily_unavailable",
}
_CLIENT_FIELDS = {"client_id": {"type": "string"}, "client_secret": {"type": "string", "format": "password"}}


def describe_form(required: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI description of an endpoint's form, including the fields of client authentication."""
    filled = {name: {"minLength": 1, **properties[name]} for name in required}
    schema = {
        "type": "object",
        "required": list(required),
        "properties": {**properties, **filled, **_CLIENT_FIELDS},
        "additionalProperties": {"type": "string"},
        "maxProperties": _MAX_FIELDS,
    }
    content = {"application/x-www-form-urlencoded": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


async def read_form(request: Request, *required: str) -> dict[str, str]:
    """Return the parameters (RFC 6749, section 3.2).

    Raises BadForm, also for a repeated parameter and for one of `required` that is missing or empty.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise BadForm("Send the parameters as application/x-www-form-urlencoded.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise BadForm(f"The form may have at most {_MAX_FORM_BYTES} bytes.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise BadForm("The form is not valid: check its encoding and its number of fields.") from error
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadForm("The form repeats a parameter. Send each parameter once.")
    form = dict(pairs)
    require_fields(form, *required)
    return form


def require_fields(form: dict[str, str], *names: str) -> None:
    """Raises BadForm, which lists the missing and empty fields."""
    missing = [name for name in names if not form.get(name)]
    if missing:
        raise BadForm(f"Missing: {', '.join(missing)}.")


async def authenticate_client(clients: ClientStore, request: Request, form: dict[str, str]) -> Client | None:
    """Return the authenticated client (RFC 6749, section 2.3.1), or None for the first-party client.

    Raises InvalidClient, BadRequest, and BadForm if the secret is sent in two ways, or if two clients are named.
    """
    scheme, _, encoded = read_header_once(request, "Authorization").partition(" ")
    client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    if scheme.lower() == "basic":
        if secret:
            raise BadForm("The request contains the client's secret twice. Send it either by HTTP Basic or as a field.")
        named, (client_id, secret) = client_id, _decode_basic(encoded)
        if named not in ("", client_id):
            raise BadForm("The field client_id is not the client of HTTP Basic. Omit the field, or send the same id.")
    if client_id in ("", FIRST_PARTY) and not secret:
        return None
    return await clients.authenticate(client_id, secret)


def _decode_basic(encoded: str) -> tuple[str, str]:
    """Raises InvalidClient."""
    try:
        client_id, separator, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # invalid base64, or invalid UTF-8 in it
        raise auth.InvalidClient from None
    if not separator:
        raise auth.InvalidClient
    return unquote_plus(client_id), unquote_plus(secret)


def build_oauth_error(request: Request, error: Exception) -> Response:
    """Return the response to one of OAUTH_ERRORS (RFC 6749, section 5.2)."""
    name = next(OAUTH_ERRORS[kind] for kind in type(error).__mro__ if kind in OAUTH_ERRORS)
    request.state.problem_code = name
    # Elsewhere a wrong password is a 403; the RFC requires 400 for invalid_grant.
    status = HTTPStatus.BAD_REQUEST if name == "invalid_grant" else find_status(error) or HTTPStatus.BAD_REQUEST
    return JSONResponse({"error": name, "error_description": str(error)}, status, build_error_headers(error))

"""`POST /auth/token` (RFC 6749), the password grant."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.deps import Rooms, State
from api.errors import OAUTH_ERRORS, BadForm, UnsupportedGrant, headers_of, status_of
from api.limits import TOKEN_LIMIT, CallerLimits
from api.schemas import Token
from auth.principal import granted_scopes

_MAX_FORM_BYTES = 16 * 1024
_MAX_FIELDS = 16
_FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type", "username", "password"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["password"]},
                        "username": {"type": "string"},
                        "password": {"type": "string", "format": "password"},
                        "scope": {"type": "string", "description": "separated by spaces; all of the role's if absent"},
                    },
                }
            }
        },
    }
}


def auth_router(limits: CallerLimits, rate: str) -> APIRouter:
    """The token endpoint; one address has `rate` on it."""
    router = APIRouter(tags=["auth"])

    @router.post("/auth/token", response_model=Token, openapi_extra=_FORM_BODY)
    @limits.per_address(rate, TOKEN_LIMIT)
    async def token(request: Request, rooms: Rooms) -> Response:
        """Exchange a user's name and password for an access token."""
        try:
            answer = await _password_grant(rooms, await _read_form(request))
        except tuple(OAUTH_ERRORS) as error:
            rooms["metrics"].auth_events.labels("token", "refused").inc()
            return _oauth_error(request, error)
        rooms["metrics"].auth_events.labels("token", "issued").inc()
        return JSONResponse(answer.model_dump(), headers={"Pragma": "no-cache"})

    return router


async def _read_form(request: Request) -> dict[str, str]:
    """The parameters, each once (RFC 6749, section 3.2). Raises BadForm."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise BadForm("Send the parameters as application/x-www-form-urlencoded.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise BadForm(f"The form may have {_MAX_FORM_BYTES} bytes at most.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise BadForm("The form is not valid: check its encoding and its number of fields.") from error
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadForm("A parameter is given more than once. Give each once.")
    return dict(pairs)


async def _password_grant(rooms: State, form: dict[str, str]) -> Token:
    """Raises BadForm, BadCredentials, UnknownScope."""
    if form.get("grant_type") != "password":
        raise UnsupportedGrant("Use grant_type=password.")
    missing = [name for name in ("username", "password") if not form.get(name)]
    if missing:
        raise BadForm(f"Missing: {', '.join(missing)}.")
    user = await rooms["accounts"].authenticate(form["username"], form["password"])
    scopes = granted_scopes(user.role, form.get("scope", ""))
    issued = rooms["tokens"].issue(subject=user.id, name=user.name, role=user.role, scopes=scopes)
    return Token(access_token=issued.access_token, expires_in=issued.expires_in, scope=" ".join(sorted(issued.scopes)))


def _oauth_error(request: Request, error: Exception) -> Response:
    """RFC 6749, section 5.2."""
    name = next(OAUTH_ERRORS[kind] for kind in type(error).__mro__ if kind in OAUTH_ERRORS)
    request.state.problem_code = name
    status = status_of(error) or HTTPStatus.BAD_REQUEST
    return JSONResponse({"error": name, "error_description": str(error)}, status, headers_of(error))

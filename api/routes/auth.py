"""`POST /auth/token` (RFC 6749): the grants `password`, `refresh_token` and `client_credentials`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.deps import Auth, SettingsDep
from api.errors import UnsupportedGrant
from api.http.audit import record_event
from api.http.oauth.forms import (
    OAUTH_ERRORS,
    OAUTH_PROBLEMS,
    authenticate_client,
    build_oauth_error,
    describe_form,
    read_form,
    require_fields,
)
from api.rate_limits.callers import caller_address
from api.rate_limits.limiter import TOKEN_LIMIT, CallerLimits
from api.schemas.oauth import Token
from api.services.auth import AuthServices
from api.settings import Settings
from auth.accounts.store import User
from auth.clients import Client
from auth.errors import InvalidClient, RefreshTokenReused
from auth.principal import ROLE_SCOPES, Scope, format_scopes, select_scopes
from auth.sessions import Session
from auth.tokens.access import FIRST_PARTY, IssuedToken
from storage.transactions import Record

_FORM_BODY = describe_form(
    ["grant_type"],
    {
        "grant_type": {"type": "string", "enum": ["password", "refresh_token", "client_credentials"]},
        "username": {"type": "string"},
        "password": {"type": "string", "format": "password"},
        "totp": {"type": "string", "description": "a one-time code, for users who have enabled them"},
        "refresh_token": {"type": "string"},
        "scope": {"type": "string", "description": "scopes separated by spaces; if absent, all that can be granted"},
    },
)

Grant = Callable[[Request, AuthServices, dict[str, str], Client | None], Awaitable[Token]]


def auth_router(limits: CallerLimits, rate: str) -> APIRouter:
    """Return the token endpoint. Each client address may send `rate` requests to it."""
    router = APIRouter(tags=["auth"])

    @router.post("/auth/token", response_model=Token, openapi_extra=_FORM_BODY, responses=OAUTH_PROBLEMS)
    @limits.per_address(rate, TOKEN_LIMIT)
    async def token(request: Request, auth: Auth, settings: SettingsDep) -> Response:
        """Exchange a user's password, a refresh token or a client's secret for an access token."""
        try:
            form = await read_form(request, "grant_type")
            await auth.changes.ensure_current()  # the signing key may have changed while the gateway was idle
            client = await authenticate_client(auth.clients, request, form)
            grant = _find_grant(form["grant_type"], settings)
            issued = await grant(request, auth, form, client)
        except tuple(OAUTH_ERRORS) as error:
            await record_event(request, "token", "refused", actor="", code=getattr(error, "code", ""))
            return build_oauth_error(request, error)
        return JSONResponse(issued.model_dump(exclude_none=True), headers={"Pragma": "no-cache"})

    return router


def _find_grant(name: str, settings: Settings) -> Grant:
    """Raises UnsupportedGrant."""
    supported = list_grant_types(settings)
    if name not in supported:
        raise UnsupportedGrant(f"Use one of the grant types {', '.join(supported)}.")
    return _GRANTS[name]


def list_grant_types(settings: Settings) -> list[str]:
    """Return the grant types that the settings enable."""
    return [name for name in _GRANTS if name != "password" or settings.auth.password_grant]


async def _grant_for_password(
    request: Request, auth: AuthServices, form: dict[str, str], client: Client | None
) -> Token:
    """Raises BadForm, BadCredentials, BadCode, LoginThrottled, HashingBusy, UnknownScope."""
    require_fields(form, "username", "password")

    def choose_scopes(user: User) -> frozenset[Scope]:
        return select_scopes(ROLE_SCOPES[user.role], form.get("scope", ""))

    name, password, code = form["username"], form["password"], form.get("totp", "")
    user = await auth.logins.log_in(name, password, code, caller_address(request), accept=choose_scopes)
    session = await auth.sessions.begin(
        user.id,
        user.credentials_version,
        choose_scopes(user),
        client.id if client else None,
        record=_recording(request, "issued", grant="password"),
    )
    return _issue_for_session(auth, session)


async def _grant_for_refresh_token(
    request: Request, auth: AuthServices, form: dict[str, str], client: Client | None
) -> Token:
    """Raises BadForm, InvalidGrant, UnknownScope."""
    require_fields(form, "refresh_token")
    scope = form.get("scope", "")
    try:
        session = await auth.sessions.rotate(
            form["refresh_token"],
            client.id if client else None,
            scope,
            record=_recording(request, "issued", grant="refresh_token"),
            record_reuse=_recording(request, "reused"),
        )
    except RefreshTokenReused:
        await auth.changes.catch_up_after_commit()
        raise
    return _issue_for_session(auth, session, scope)


def _recording(request: Request, outcome: str, **detail: str) -> Record[Session]:
    return lambda transaction, session: record_event(
        request, "token", outcome, within=transaction, actor=session.user_id, session=session.id, **detail
    )


def _issue_for_session(auth: AuthServices, session: Session, requested_scope: str = "") -> Token:
    """Issue a token with at most the scopes of the session, and at most the scopes that the user's role grants now."""
    issued = auth.tokens.issue(
        subject=session.user_id,
        name=session.user_name,
        role=session.role,
        scopes=session.select_scopes(requested_scope),
        session_id=session.id,
        client_id=session.client_id or FIRST_PARTY,
    )
    return _describe_token(issued, session.refresh_token)


async def _grant_for_client_credentials(
    request: Request, auth: AuthServices, form: dict[str, str], client: Client | None
) -> Token:
    """Raises InvalidClient, UnknownScope."""
    if client is None:
        raise InvalidClient
    scopes = select_scopes(client.scopes, form.get("scope", ""))
    issued = auth.tokens.issue(subject=client.id, name=client.name, role=None, scopes=scopes, client_id=client.id)
    await record_event(request, "token", "issued", actor=client.id, grant="client_credentials")
    return _describe_token(issued)


def _describe_token(issued: IssuedToken, refresh_token: str | None = None) -> Token:
    return Token(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        refresh_token=refresh_token,
        scope=format_scopes(issued.scopes),
    )


_GRANTS: Mapping[str, Grant] = {
    "password": _grant_for_password,
    "refresh_token": _grant_for_refresh_token,
    "client_credentials": _grant_for_client_credentials,
}

"""`POST /auth/token` (RFC 6749): the grants `password`, `refresh_token` and `client_credentials`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.deps import Rooms, State
from api.errors import UnsupportedGrant
from api.http.audit import record
from api.http.errors import OAUTH_ERRORS
from api.http.oauth_forms import REFUSALS, authenticate_client, form_body, oauth_error, read_form, require
from api.rate_limits.limiter import TOKEN_LIMIT, CallerLimits, caller_address
from api.schemas.predictions import Token
from auth.accounts.store import User
from auth.clients import Client
from auth.errors import InvalidClient, InvalidGrant, RefreshTokenReused, UserNotFound
from auth.principal import ROLE_SCOPES, format_scopes, select_scopes
from auth.sessions import Session
from auth.tokens.access import FIRST_PARTY, IssuedToken

_FORM_BODY = form_body(
    ["grant_type"],
    {
        "grant_type": {"type": "string", "enum": ["password", "refresh_token", "client_credentials"]},
        "username": {"type": "string"},
        "password": {"type": "string", "format": "password"},
        "totp": {"type": "string", "description": "a one-time code, for users who have them"},
        "refresh_token": {"type": "string"},
        "scope": {"type": "string", "description": "separated by spaces; all that can be had if absent"},
    },
)

Grant = Callable[[Request, State, dict[str, str], Client | None], Awaitable[Token]]


def auth_router(limits: CallerLimits, rate: str) -> APIRouter:
    """The token endpoint; one address has `rate` on it."""
    router = APIRouter(tags=["auth"])

    @router.post("/auth/token", response_model=Token, openapi_extra=_FORM_BODY, responses=REFUSALS)
    @limits.per_address(rate, TOKEN_LIMIT)
    async def token(request: Request, rooms: Rooms) -> Response:
        """Exchange a user's password, a refresh token or a client's secret for an access token."""
        try:
            form = await read_form(request, "grant_type")
            client = await authenticate_client(rooms["clients"], request, form)
            answer = await _grant(form["grant_type"], rooms)(request, rooms, form, client)
        except tuple(OAUTH_ERRORS) as error:
            await record(request, "token", "refused", actor="", code=getattr(error, "code", ""))
            return oauth_error(request, error)
        return JSONResponse(answer.model_dump(exclude_none=True), headers={"Pragma": "no-cache"})

    return router


def _grant(name: str, rooms: State) -> Grant:
    """Raises UnsupportedGrant."""
    offered = {grant: _GRANTS[grant] for grant in grants(rooms)}
    if name not in offered:
        raise UnsupportedGrant(f"Use one of the grant types {', '.join(offered)}.")
    return offered[name]


def grants(rooms: State) -> list[str]:
    """The grant types that the settings offer."""
    return [name for name in _GRANTS if name != "password" or rooms["settings"].auth.password_grant]


async def _password(request: Request, rooms: State, form: dict[str, str], client: Client | None) -> Token:
    """Raises BadForm, BadCredentials, BadCode, TooManyGuesses, HashingBusy, UnknownScope."""
    require(form, "username", "password")
    given = form["username"], form["password"], form.get("totp", "")
    user = await rooms["logins"].log_in(*given, caller_address(request))
    scopes = select_scopes(ROLE_SCOPES[user.role], form.get("scope", ""))
    session = await rooms["sessions"].begin(user.id, scopes, client.id if client else None)
    # A role that was changed before the session began has ended no session of this log-in.
    user = await rooms["accounts"].get(user.id)
    await record(request, "token", "issued", actor=user.id, grant="password", session=session.id)
    return _for_session(rooms, user, session)


async def _refresh(request: Request, rooms: State, form: dict[str, str], client: Client | None) -> Token:
    """Raises BadForm, InvalidGrant, UnknownScope."""
    require(form, "refresh_token")
    try:
        session = await rooms["sessions"].rotate(form["refresh_token"], client.id if client else None)
    except RefreshTokenReused as error:
        await rooms["changes"].catch_up()
        await record(request, "token", "reused", actor=error.user_id, session=error.session_id)
        raise
    try:
        user = await rooms["accounts"].get(session.user_id)
    except UserNotFound:
        raise InvalidGrant from None
    if user.disabled_at is not None:
        raise InvalidGrant
    await record(request, "token", "issued", actor=user.id, grant="refresh_token", session=session.id)
    return _for_session(rooms, user, session, form.get("scope", ""))


def _for_session(rooms: State, user: User, session: Session, asked: str = "") -> Token:
    """A refresh can ask for less; a role that was narrowed meanwhile narrows the session."""
    issued = rooms["tokens"].issue(
        subject=user.id,
        name=user.name,
        role=user.role,
        scopes=select_scopes(session.scopes & ROLE_SCOPES[user.role], asked),
        session_id=session.id,
        client_id=session.client_id or FIRST_PARTY,
    )
    return _answer(issued, session.refresh_token)


async def _client_credentials(request: Request, rooms: State, form: dict[str, str], client: Client | None) -> Token:
    """Raises InvalidClient, UnknownScope."""
    if client is None:
        raise InvalidClient
    scopes = select_scopes(client.scopes, form.get("scope", ""))
    issued = rooms["tokens"].issue(subject=client.id, name=client.name, role=None, scopes=scopes, client_id=client.id)
    await record(request, "token", "issued", actor=client.id, grant="client_credentials")
    return _answer(issued)


def _answer(issued: IssuedToken, refresh_token: str | None = None) -> Token:
    return Token(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        refresh_token=refresh_token,
        scope=format_scopes(issued.scopes),
    )


_GRANTS: Mapping[str, Grant] = {
    "password": _password,
    "refresh_token": _refresh,
    "client_credentials": _client_credentials,
}

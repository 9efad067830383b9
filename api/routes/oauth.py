"""Revocation (RFC 7009), introspection (RFC 7662), metadata (RFC 8414) and the public keys (RFC 7517)."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.deps import Rooms, State, authenticate_request, get_bearer_token
from api.errors import UnauthorizedClient
from api.http.audit import record
from api.http.errors import OAUTH_ERRORS
from api.http.oauth_forms import REFUSALS, authenticate_client, form_body, oauth_error, read_form
from api.routes.auth import grants
from api.schemas.predictions import Introspection
from auth.authenticator import token_targets
from auth.errors import InvalidClient, InvalidToken
from auth.principal import Principal, Scope, format_scopes
from auth.sessions import REFRESH_PREFIX, RefreshToken
from auth.tokens.access import FIRST_PARTY

router = APIRouter(tags=["auth"])

_PUBLIC = {"Cache-Control": "public, max-age=300"}
_FORM_BODY = form_body(["token"], {"token": {"type": "string"}, "token_type_hint": {"type": "string"}})


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks about a token: a client, or a principal with a token of its own."""

    subject: str
    client_id: str | None
    administers: bool

    def owns(self, token: Principal | RefreshToken) -> bool:
        if self.client_id is not None:
            return (token.client_id or FIRST_PARTY) == self.client_id
        subject = token.subject if isinstance(token, Principal) else token.user_id
        return self.administers or subject == self.subject


@router.post("/auth/revoke", response_class=Response, openapi_extra=_FORM_BODY, responses=REFUSALS)
async def revoke(request: Request, rooms: Rooms) -> Response:
    """End a refresh token with its whole session, or one access token. An unknown token is answered alike."""
    try:
        form = await read_form(request, "token")
        caller = await _caller(request, rooms, form, public=True)
        token = await _find(rooms, form["token"])
        if token is not None:
            await _revoke(request, rooms, caller, token)
    except tuple(OAUTH_ERRORS) as error:
        return await _refuse(request, "revocation", error)
    return Response()


@router.post("/auth/introspect", response_model=Introspection, openapi_extra=_FORM_BODY, responses=REFUSALS)
async def introspect(request: Request, rooms: Rooms) -> Response:
    """Tell a client about any token, and a user about the user's own."""
    try:
        form = await read_form(request, "token")
        caller = await _caller(request, rooms, form)
        token = await _find(rooms, form["token"])
    except tuple(OAUTH_ERRORS) as error:
        return await _refuse(request, "introspection", error)
    visible = token is not None and (caller.client_id is not None or caller.owns(token))
    answer = _describe(rooms, token) if token is not None and visible else Introspection(active=False)
    return JSONResponse(answer.model_dump(exclude_none=True))


@router.get("/.well-known/jwks.json")
async def jwks(rooms: Rooms) -> Response:
    """The keys that this gateway's tokens can be verified with."""
    return JSONResponse(rooms["keyring"].public_jwks(), headers=_PUBLIC)


@router.get("/.well-known/oauth-authorization-server")
async def metadata(rooms: Rooms) -> Response:
    """What a client needs to know to get, refresh, revoke and inspect tokens."""
    issuer = rooms["tokens"].issuer
    methods = ["client_secret_basic", "client_secret_post"]
    document = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/auth/token",
        "revocation_endpoint": f"{issuer}/auth/revoke",
        "introspection_endpoint": f"{issuer}/auth/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": grants(rooms),
        "response_types_supported": [],  # there is no authorization endpoint
        "scopes_supported": sorted(Scope),
        "token_endpoint_auth_methods_supported": [*methods, "none"],
        "revocation_endpoint_auth_methods_supported": [*methods, "none"],
        "introspection_endpoint_auth_methods_supported": methods,
    }
    return JSONResponse(document, headers=_PUBLIC)


async def _refuse(request: Request, event: str, error: Exception) -> Response:
    if not isinstance(error, InvalidToken):  # that is on record already
        await record(request, event, "refused", code=getattr(error, "code", ""))
    return oauth_error(request, error)


async def _caller(request: Request, rooms: State, form: dict[str, str], *, public: bool = False) -> _Caller:
    """Raises InvalidClient, InvalidToken, BadForm. `public`: a first-party caller need only name itself."""
    bearer = get_bearer_token(request)
    if bearer is not None:
        principal = await authenticate_request(request, rooms, bearer)
        return _Caller(principal.subject, None, Scope.USERS_ADMIN in principal.scopes)
    client = await authenticate_client(rooms["clients"], request, form)
    if client is not None:
        return _Caller(client.id, client.id, False)
    if public and form.get("client_id") == FIRST_PARTY:
        return _Caller("", FIRST_PARTY, False)
    raise InvalidClient


async def _find(rooms: State, token: str) -> Principal | RefreshToken | None:
    if token.startswith(REFRESH_PREFIX):
        return await rooms["sessions"].find(token)
    try:
        principal = rooms["tokens"].verify(token)
    except InvalidToken:
        return None
    return None if any(map(rooms["changes"].is_revoked, token_targets(principal))) else principal


async def _revoke(request: Request, rooms: State, caller: _Caller, token: Principal | RefreshToken) -> None:
    if not caller.owns(token):
        raise UnauthorizedClient("The token was issued to another. Let its owner revoke it.")
    if isinstance(token, RefreshToken):
        await rooms["sessions"].end(token.session_id)
        target = f"sid:{token.session_id}"
    else:
        await rooms["sessions"].revoke_access_token(str(token.token_id))
        target = f"jti:{token.token_id}"
    await rooms["changes"].catch_up()
    await record(request, "token", "revoked", actor=caller.subject, target=target)


def _describe(rooms: State, token: Principal | RefreshToken) -> Introspection:
    issuer, audience = rooms["tokens"].issuer, rooms["settings"].auth.audience
    if isinstance(token, RefreshToken):
        return Introspection(
            active=True,
            scope=format_scopes(token.scopes),
            client_id=token.client_id or FIRST_PARTY,
            token_type="refresh_token",  # noqa: S106  (a kind)
            exp=int(token.expires_at.timestamp()),
            sub=token.user_id,
            iss=issuer,
        )
    return Introspection(
        active=True,
        scope=format_scopes(token.scopes),
        client_id=token.client_id,
        username=token.name,
        token_type="Bearer",  # noqa: S106  (a kind)
        exp=int(token.expires_at.timestamp()) if token.expires_at else None,
        sub=token.subject,
        aud=audience,
        iss=issuer,
        jti=token.token_id,
    )

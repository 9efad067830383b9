"""Revocation (RFC 7009), introspection (RFC 7662), metadata (RFC 8414) and the public keys (RFC 7517)."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.deps import Auth, SettingsDep, SigningKeys, Tokens, authenticate_credential
from api.errors import UnauthorizedClient
from api.http.audit import record_event
from api.http.oauth.credentials import get_bearer_token
from api.http.oauth.forms import (
    OAUTH_ERRORS,
    OAUTH_PROBLEMS,
    authenticate_client,
    build_oauth_error,
    describe_form,
    read_form,
)
from api.rate_limits.limiter import OAUTH_LIMIT, CallerLimits
from api.routes.auth import list_grant_types
from api.schemas.oauth import Introspection
from api.services.auth import AuthServices
from auth.authenticator import token_targets
from auth.errors import InvalidClient, InvalidToken
from auth.principal import Principal, Scope, format_scopes
from auth.sessions import REFRESH_PREFIX, RefreshToken
from auth.tokens.access import FIRST_PARTY
from auth.tokens.keyring import ACTIVATION_DELAY

_METADATA_CACHE = {"Cache-Control": "public, max-age=300"}
# Resource servers must fetch a new key before it signs. The other half of the delay is for gateways that read it late.
_KEYS_CACHE = {"Cache-Control": f"public, max-age={ACTIVATION_DELAY.seconds // 2}"}
_FORM_BODY = describe_form(["token"], {"token": {"type": "string"}, "token_type_hint": {"type": "string"}})


class _Inquirer(Struct, frozen=True):
    """The caller of revocation or introspection: a client, or a principal with its own access token."""

    subject: str
    client_id: str | None
    administers: bool

    def owns(self, token: Principal | RefreshToken) -> bool:
        if self.client_id is not None:
            return (token.client_id or FIRST_PARTY) == self.client_id
        subject = token.subject if isinstance(token, Principal) else token.user_id
        return self.administers or subject == self.subject


def oauth_router(limits: CallerLimits, rate: str) -> APIRouter:
    """Return the routes about tokens. `rate` limits each client address on the routes that read the database."""
    router = APIRouter(tags=["auth"])
    limited = limits.per_address(rate, OAUTH_LIMIT)
    post = partial(router.post, openapi_extra=_FORM_BODY, responses=OAUTH_PROBLEMS)
    post("/auth/revoke", response_class=Response)(limited(revoke))
    post("/auth/introspect", response_model=Introspection)(limited(introspect))
    router.get("/.well-known/jwks.json")(jwks)
    router.get("/.well-known/oauth-authorization-server")(metadata)
    return router


async def revoke(request: Request, auth: Auth) -> Response:
    """Revoke a refresh token with its whole session, or one access token. Revoking an unknown token succeeds, too."""
    try:
        form = await read_form(request, "token")
        inquirer = await _authenticate_inquirer(request, auth, form, public=True)
        # Even a used token ends its session, so that a thief who has exchanged a stolen one loses the session.
        token = await _find_token(auth, form["token"], to_revoke=True)
        if token is not None:
            await _revoke(request, auth, inquirer, token)
    except tuple(OAUTH_ERRORS) as error:
        return await _reject(request, "revocation", error)
    return Response()


async def introspect(request: Request, auth: Auth, settings: SettingsDep) -> Response:
    """Describe a token. Clients and users with `users:admin` may inspect any token, other users only their own."""
    try:
        form = await read_form(request, "token")
        inquirer = await _authenticate_inquirer(request, auth, form)
        token = await _find_token(auth, form["token"])
    except tuple(OAUTH_ERRORS) as error:
        return await _reject(request, "introspection", error)
    if token is not None and (inquirer.client_id is not None or inquirer.owns(token)):
        result = _describe_token(token, auth.tokens.issuer, settings.auth.audience)
    else:
        result = Introspection(active=False)
    return JSONResponse(result.model_dump(exclude_none=True))


async def jwks(keys: SigningKeys) -> Response:
    """The public keys that verify this gateway's tokens."""
    return JSONResponse(keys.public_jwks(), headers=_KEYS_CACHE)


async def metadata(tokens: Tokens, settings: SettingsDep) -> Response:
    """What a client needs to know to get, refresh, revoke and inspect tokens."""
    issuer = tokens.issuer
    methods = ["client_secret_basic", "client_secret_post"]
    document = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/auth/token",
        "revocation_endpoint": f"{issuer}/auth/revoke",
        "introspection_endpoint": f"{issuer}/auth/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": list_grant_types(settings),
        "response_types_supported": [],  # there is no authorization endpoint
        "scopes_supported": sorted(Scope),
        "token_endpoint_auth_methods_supported": [*methods, "none"],
        "revocation_endpoint_auth_methods_supported": [*methods, "none"],
        "introspection_endpoint_auth_methods_supported": methods,
    }
    return JSONResponse(document, headers=_METADATA_CACHE)


async def _reject(request: Request, event: str, error: Exception) -> Response:
    if not isinstance(error, InvalidToken):  # already recorded when the token was checked
        await record_event(request, event, "refused", code=getattr(error, "code", ""))
    return build_oauth_error(request, error)


async def _authenticate_inquirer(
    request: Request, auth: AuthServices, form: dict[str, str], *, public: bool = False
) -> _Inquirer:
    """Authenticate by bearer token or as a client. With `public`, naming the first-party client is enough.

    Raises InvalidClient, InvalidToken, BadForm, BadRequest.
    """
    bearer = get_bearer_token(request)
    if bearer is not None:
        principal = await authenticate_credential(request, bearer)
        return _Inquirer(principal.subject, None, Scope.USERS_ADMIN in principal.scopes)
    await auth.changes.ensure_current()
    client = await authenticate_client(auth.clients, request, form)
    if client is not None:
        return _Inquirer(client.id, client.id, False)
    if public and form.get("client_id") == FIRST_PARTY:
        return _Inquirer("", FIRST_PARTY, False)
    raise InvalidClient


async def _find_token(auth: AuthServices, token: str, *, to_revoke: bool = False) -> Principal | RefreshToken | None:
    """Return None for a token that is unknown, expired or revoked, and for a used refresh token unless `to_revoke`."""
    if token.startswith(REFRESH_PREFIX):
        return await auth.sessions.find(token, to_revoke=to_revoke)
    await auth.changes.ensure_current()
    try:
        principal = auth.tokens.verify(token)
    except InvalidToken:
        return None
    return None if any(map(auth.changes.is_revoked, token_targets(principal))) else principal


async def _revoke(request: Request, auth: AuthServices, inquirer: _Inquirer, token: Principal | RefreshToken) -> None:
    """Raises UnauthorizedClient."""
    if not inquirer.owns(token):
        raise UnauthorizedClient("The token was issued to another client. Only its owner can revoke it.")
    target = f"sid:{token.session_id}" if isinstance(token, RefreshToken) else f"jti:{token.token_id}"

    async def record(transaction: AsyncConnection, _: None) -> None:
        await record_event(request, "token", "revoked", within=transaction, actor=inquirer.subject, target=target)

    if isinstance(token, RefreshToken):
        await auth.sessions.end(token.session_id, record=record)
    else:
        await auth.sessions.revoke_access_token(str(token.token_id), record=record)
    await auth.changes.catch_up_after_commit()


def _describe_token(token: Principal | RefreshToken, issuer: str, audience: str) -> Introspection:
    if isinstance(token, RefreshToken):
        return Introspection(
            active=True,
            scope=format_scopes(token.scopes),
            client_id=token.client_id or FIRST_PARTY,
            token_type="refresh_token",  # noqa: S106  (a kind of token)
            exp=int(token.expires_at.timestamp()),
            sub=token.user_id,
            iss=issuer,
        )
    return Introspection(
        active=True,
        scope=format_scopes(token.scopes),
        client_id=token.client_id,
        username=token.name,
        token_type="Bearer",  # noqa: S106  (a kind of token)
        exp=int(token.expires_at.timestamp()) if token.expires_at else None,
        sub=token.subject,
        aud=audience,
        iss=issuer,
        jti=token.token_id,
    )

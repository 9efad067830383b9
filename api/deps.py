"""The vocabulary of the endpoints: who calls, and what the rooms offer them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypedDict, cast

import structlog
from fastapi import Depends
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import Request
from starlette.responses import Response

from api.http.audit import record
from api.http.draining import Draining
from api.rate_limits.limiter import caller_address
from api.settings import Settings
from auth.accounts.service import AccountService
from auth.api_keys.last_use import LastUseRecorder
from auth.api_keys.store import KeyStore
from auth.authenticator import Authenticator
from auth.changes import ChangeFeed
from auth.clients import ClientStore
from auth.errors import InsufficientScope, InvalidToken, MissingCredentials
from auth.login.service import LoginService
from auth.login.totp import OneTimeCodes
from auth.principal import Principal, Scope
from auth.quotas.meter import UsageMeter
from auth.sessions import SessionStore
from auth.tokens.access import TokenAuthority
from auth.tokens.keyring import Keyring
from model.serving.memory_budget import MemoryBudget
from model.serving.service import PredictionService
from monitoring.audit.trail import AuditTrail
from monitoring.health import Health
from monitoring.ledger.ledger import Ledger
from monitoring.ledger.reader import LedgerReader
from monitoring.metrics import Metrics


class State(TypedDict):
    """What the lifespan opens and every request finds in `request.state`."""

    settings: Settings
    metrics: Metrics
    audit: AuditTrail
    accounts: AccountService
    codes: OneTimeCodes
    logins: LoginService
    sessions: SessionStore
    clients: ClientStore
    keys: KeyStore
    key_uses: LastUseRecorder
    changes: ChangeFeed
    keyring: Keyring
    tokens: TokenAuthority
    authenticator: Authenticator
    certificates: Authenticator
    meter: UsageMeter
    ledger: Ledger
    history: LedgerReader
    service: PredictionService
    memory: MemoryBudget
    health: Health
    draining: Draining


def get_services(request: Request) -> State:
    """What the rooms offer this request."""
    return cast(State, request.scope["state"])


async def _state(request: Request) -> State:
    # Asynchronous: FastAPI would send a plain function to another thread.
    return get_services(request)


Rooms = Annotated[State, Depends(_state)]


def get_bearer_token(request: Request) -> str | None:
    """What follows `Bearer` in the Authorization header (RFC 6750, section 2.1)."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else None


async def authenticate_request(request: Request, rooms: State, credential: str) -> Principal:
    """Raises InvalidToken, IssuerUnavailable, DatabaseUnavailable."""
    return await _judged(request, rooms, rooms["authenticator"], credential)


async def _judged(request: Request, rooms: State, judge: Authenticator, credential: str) -> Principal:
    try:
        principal = await judge.authenticate(credential, caller_address(request))
    except InvalidToken:
        await record(request, "access", "invalid", actor="")
        raise
    request.state.principal = principal
    if principal.key_id is not None:
        rooms["key_uses"].record(principal.key_id)
    structlog.contextvars.bind_contextvars(principal=principal.subject)
    return principal


class Caller(OAuth2PasswordBearer):
    """A dependency that answers the principal, once it is known to hold `scope` where one is given.

    One step for FastAPI, which takes longer for a dependency than this does to check a known token. A request's
    principal is found out once, however often it is asked for.
    """

    def __init__(self, scope: Scope | None = None) -> None:
        super().__init__("/auth/token", scheme_name="OAuth2PasswordBearer", scopes=dict.fromkeys(Scope, ""))
        self._scope = scope

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]  # a string elsewhere
        principal = getattr(request.state, "principal", None) or await _principal(request, get_services(request))
        if self._scope is not None:
            try:
                principal.require(self._scope)
            except InsufficientScope:
                await record(request, "access", "forbidden", scope=self._scope)
                raise
        return principal


class GuardedRoute(APIRoute):
    """A route that knows its caller before it reads a body: FastAPI would read it first."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, known = super().get_route_handler(), Caller()

        async def handle_known(request: Request) -> Response:
            await known(request)
            return await handle(request)

        return handle_known


CurrentPrincipal = Annotated[Principal, Depends(Caller())]


def get_credential(request: Request) -> str | None:
    """A bearer token or an API key, the former first."""
    return get_bearer_token(request) or request.headers.get("x-api-key")


async def _principal(request: Request, rooms: State) -> Principal:
    credential = get_credential(request)
    if credential:
        return await authenticate_request(request, rooms, credential)
    certificate = _certificate_of(request)
    if certificate and rooms["settings"].auth.client_certificates:
        return await _judged(request, rooms, rooms["certificates"], certificate)
    await record(request, "access", "missing", actor="")
    raise MissingCredentials("No credentials. Send `Authorization: Bearer` with a token from /auth/token.")


def _certificate_of(request: Request) -> str | None:
    """The client's verified certificate as PEM, by ASGI's TLS extension.

    A browser presents one unasked: what a page of another site makes it send is not the user's act.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return None
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
    return chain[0] if chain else None

"""The vocabulary of the endpoints: who calls, and what the rooms offer them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypedDict, cast

import structlog
from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from starlette.requests import Request

from api.audit import record
from api.draining import Draining
from api.limits import caller_address
from api.settings import Settings
from auth.accounts import Accounts
from auth.authenticator import Authenticator
from auth.changes import ChangeFeed
from auth.clients import ClientStore
from auth.errors import InsufficientScope, InvalidToken, MissingCredentials
from auth.key_uses import KeyUses
from auth.keyring import Keyring
from auth.keys import KeyStore
from auth.logins import LogIns
from auth.principal import Principal, Scope
from auth.sessions import SessionStore
from auth.tokens import TokenAuthority
from auth.totp import OneTimeCodes
from auth.usage import UsageMeter
from model.budget import MemoryBudget
from model.service import PredictionService
from monitoring.audit.trail import AuditTrail
from monitoring.health import Check
from monitoring.ledger.ledger import Ledger
from monitoring.ledger.reader import LedgerReader
from monitoring.metrics import Metrics


class State(TypedDict):
    """What the lifespan opens and every request finds in `request.state`."""

    settings: Settings
    metrics: Metrics
    audit: AuditTrail
    accounts: Accounts
    codes: OneTimeCodes
    logins: LogIns
    sessions: SessionStore
    clients: ClientStore
    keys: KeyStore
    key_uses: KeyUses
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
    readiness: dict[str, Check]
    draining: Draining


async def _state(request: Request) -> State:
    # Asynchronous: FastAPI would send a plain function to another thread.
    return cast(State, request.scope["state"])


Rooms = Annotated[State, Depends(_state)]

# Declare the schemes in the OpenAPI document; the checks are below.
_bearer = OAuth2PasswordBearer(tokenUrl="/auth/token", auto_error=False, scopes=dict.fromkeys(Scope, ""))
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False)


def bearer_of(request: Request) -> str | None:
    """What follows `Bearer` in the Authorization header (RFC 6750, section 2.1)."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else None


async def principal_of(request: Request, rooms: State, credential: str) -> Principal:
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
        rooms["key_uses"].note(principal.key_id)
    structlog.contextvars.bind_contextvars(principal=principal.subject)
    return principal


async def _principal(
    request: Request,
    rooms: Rooms,
    _token: Annotated[str | None, Security(_bearer)],
    api_key: Annotated[str | None, Security(_api_key)],
) -> Principal:
    credential = bearer_of(request) or api_key
    if credential:
        return await principal_of(request, rooms, credential)
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


CurrentPrincipal = Annotated[Principal, Depends(_principal)]


def requires(scope: Scope) -> Callable[[Request, Principal], Awaitable[Principal]]:
    """A dependency that answers the principal, once it is known to hold `scope`."""

    async def authorised(request: Request, principal: CurrentPrincipal) -> Principal:
        try:
            principal.require(scope)
        except InsufficientScope:
            await record(request, "access", "forbidden", scope=scope)
            raise
        return principal

    return authorised

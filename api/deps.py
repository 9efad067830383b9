"""The vocabulary of the endpoints: who calls, and what the rooms offer them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypedDict, cast

import structlog
from fastapi import Depends, Security
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import Request

from api.settings import Settings
from auth.accounts import Accounts
from auth.errors import InsufficientScope, InvalidToken, MissingCredentials
from auth.principal import Principal, Scope
from auth.tokens import TokenAuthority
from model.service import PredictionService
from monitoring.health import Check
from monitoring.metrics import Metrics


class State(TypedDict):
    """What the lifespan opens and every request finds in `request.state`."""

    settings: Settings
    metrics: Metrics
    accounts: Accounts
    tokens: TokenAuthority
    service: PredictionService
    readiness: dict[str, Check]


def _state(request: Request) -> State:
    return cast(State, request.scope["state"])


Rooms = Annotated[State, Depends(_state)]

# Declares the scheme in the OpenAPI document; the checks are below.
_bearer = OAuth2PasswordBearer(tokenUrl="/auth/token", auto_error=False, scopes=dict.fromkeys(Scope, ""))


async def _principal(request: Request, rooms: Rooms, token: Annotated[str | None, Security(_bearer)]) -> Principal:
    events = rooms["metrics"].auth_events
    if not token:
        events.labels("access", "missing").inc()
        raise MissingCredentials("No credentials. Send `Authorization: Bearer` with a token from /auth/token.")
    try:
        principal = rooms["tokens"].verify(token)
    except InvalidToken:
        events.labels("access", "invalid").inc()
        raise
    request.state.principal = principal
    structlog.contextvars.bind_contextvars(principal=principal.subject)
    return principal


CurrentPrincipal = Annotated[Principal, Depends(_principal)]


def requires(scope: Scope) -> Callable[[Principal, State], Awaitable[Principal]]:
    """A dependency that answers the principal, once it is known to hold `scope`."""

    async def authorised(principal: CurrentPrincipal, rooms: Rooms) -> Principal:
        try:
            principal.require(scope)
        except InsufficientScope:
            rooms["metrics"].auth_events.labels("access", "forbidden").inc()
            raise
        return principal

    return authorised

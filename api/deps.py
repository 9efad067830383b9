"""The dependencies of the endpoints: the authenticated caller, and the services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypedDict, TypeVar, cast

import structlog
from fastapi import Depends
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordBearer
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.errors import RegistryMissing
from api.http.audit import record_event
from api.http.draining import Draining
from api.http.oauth.credentials import get_credential
from api.prediction.pipeline import PredictionPipeline
from api.rate_limits.callers import caller_address
from api.services.auth import AuthServices
from api.services.canary.running import CanaryServices
from api.services.measuring.cost import CostService
from api.services.personal_data.erasure import RecordErasure
from api.services.recording import RecordingServices
from api.services.runtime import RuntimeServices
from api.services.serving import ServingServices
from api.settings import Settings
from auth.accounts.deletion import AccountDeletion
from auth.accounts.service import AccountService
from auth.api_keys.store import KeyStore
from auth.authenticator import Authenticator
from auth.changes import ChangeFeed
from auth.errors import InsufficientScope, InvalidToken, KeyBound, LoginRequired, MissingCredentials, SubjectBarred
from auth.login.service import LoginService
from auth.login.totp import OneTimeCodes
from auth.principal import Principal, Scope
from auth.quotas.meter import UsageMeter
from auth.tokens.access import TokenAuthority
from auth.tokens.keyring import Keyring
from model.registry.promotion import AliasMover
from monitoring.audit.store import AuditStore
from monitoring.health import Health
from monitoring.ledger.reader import LedgerReader

T = TypeVar("T")


class Services(Struct, frozen=True):
    """All services of one process, grouped by purpose."""

    auth: AuthServices
    serving: ServingServices
    recording: RecordingServices
    runtime: RuntimeServices
    canary: CanaryServices
    mover: AliasMover | None  # None without a registry of models


class AppState(TypedDict):
    """What the lifespan opens, available to every request in `request.state`."""

    services: Services
    pipeline: PredictionPipeline


def get_services(request: Request) -> Services:
    return cast(Services, request.scope["state"]["services"])


def get_pipeline(request: Request) -> PredictionPipeline:
    return cast(PredictionPipeline, request.scope["state"]["pipeline"])


def _provide(select: Callable[[Services], T]) -> Callable[[Request], Awaitable[T]]:
    """Make a dependency that returns one of the services: async, because FastAPI runs synchronous ones in a thread."""

    async def provide(request: Request) -> T:
        return select(get_services(request))

    return provide


async def _require_mover(request: Request) -> AliasMover:
    """Raises RegistryMissing."""
    mover = get_services(request).mover
    if mover is None:
        raise RegistryMissing
    return mover


Auth = Annotated[AuthServices, Depends(_provide(lambda services: services.auth))]
Users = Annotated[AccountService, Depends(_provide(lambda services: services.auth.accounts))]
Deletion = Annotated[AccountDeletion, Depends(_provide(lambda services: services.auth.deletion))]
Logins = Annotated[LoginService, Depends(_provide(lambda services: services.auth.logins))]
Codes = Annotated[OneTimeCodes, Depends(_provide(lambda services: services.auth.one_time_codes))]
Keys = Annotated[KeyStore, Depends(_provide(lambda services: services.auth.keys))]
Changes = Annotated[ChangeFeed, Depends(_provide(lambda services: services.auth.changes))]
Tokens = Annotated[TokenAuthority, Depends(_provide(lambda services: services.auth.tokens))]
SigningKeys = Annotated[Keyring, Depends(_provide(lambda services: services.auth.keyring))]
Usage = Annotated[UsageMeter, Depends(_provide(lambda services: services.auth.meter))]
AuditLog = Annotated[AuditStore, Depends(_provide(lambda services: services.recording.audit_log))]
Costs = Annotated[CostService, Depends(_provide(lambda services: services.recording.cost))]
History = Annotated[LedgerReader, Depends(_provide(lambda services: services.recording.history))]
SettingsDep = Annotated[Settings, Depends(_provide(lambda services: services.runtime.settings))]
ErasureDep = Annotated[RecordErasure, Depends(_provide(lambda services: services.recording.erasure))]
HealthDep = Annotated[Health, Depends(_provide(lambda services: services.runtime.health))]
Mover = Annotated[AliasMover, Depends(_require_mover)]
Canary = Annotated[CanaryServices, Depends(_provide(lambda services: services.canary))]
DrainingDep = Annotated[Draining, Depends(_provide(lambda services: services.runtime.draining))]


async def _count_request(request: Request) -> None:
    """Raises RateLimitExceeded."""
    await get_services(request).runtime.limits.check_request(request)


class Caller(OAuth2PasswordBearer):
    """A dependency that returns the principal, after checking that it holds `scope` if one is given.

    One dependency does both, because FastAPI takes longer to resolve a dependency than this class to check a cached
    token. Each dependency authenticates again, because the credential may have been revoked while the body arrived; the
    authenticator's cache makes that cheap. `admit` is called once for each authenticated request, before the scope is
    checked. By default it counts the request towards the principal's LIMITS__REQUESTS.
    """

    def __init__(
        self, scope: Scope | None = None, *, admit: Callable[[Request], Awaitable[None]] = _count_request
    ) -> None:
        super().__init__("/auth/token", scheme_name="OAuth2PasswordBearer", scopes=dict.fromkeys(Scope, ""))
        self._scope = scope
        self._admit = admit

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]  # the base class returns a string
        """Raises MissingCredentials, InvalidToken, InsufficientScope, IssuerUnavailable, DatabaseUnavailable.

        Also raises BadRequest, and what `admit` raises.
        """
        was_admitted = "principal" in request.scope["state"]
        principal = await _authenticate(request)
        if not was_admitted:
            await self._admit(request)
        if self._scope is not None:
            try:
                principal.require(self._scope)
            except InsufficientScope:
                await record_event(request, "access", "forbidden", scope=self._scope)
                raise
        return principal


CurrentPrincipal = Annotated[Principal, Depends(Caller())]


async def require_login(request: Request, principal: CurrentPrincipal) -> None:
    """Check that the caller may change credentials and roles; see Principal.require_login.

    Routes that always make such a change declare this as a dependency; routes that only sometimes do call it. Raises
    KeyBound, LoginRequired.
    """
    try:
        principal.require_login()
    except (KeyBound, LoginRequired) as error:
        await record_event(request, "access", "forbidden", code=error.code)
        raise


async def choose_user(
    request: Request, users: AccountService, principal: Principal, user: str | None, event: str, target: str = ""
) -> str:
    """Return the caller's id, or that of another `user` if the caller may administer users.

    A caller who may not is recorded as `event`, with `target`. Raises InsufficientScope, UserNotFound.
    """
    if user is None or user == principal.subject:
        return principal.subject
    try:
        principal.require(Scope.USERS_ADMIN)
    except InsufficientScope as error:
        await record_event(request, event, "refused", target=target, code=error.code)
        raise
    return (await users.get(user)).id


class GuardedRoute(APIRoute):
    """A route that authenticates the caller before FastAPI reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, authenticate = super().get_route_handler(), Caller()

        async def handle_authenticated(request: Request) -> Response:
            await authenticate(request)
            return await handle(request)

        return handle_authenticated


async def authenticate_credential(request: Request, credential: str) -> Principal:
    """Raises InvalidToken, IssuerUnavailable, DatabaseUnavailable."""
    return await _verify(request, get_services(request).auth.authenticator, credential)


async def _authenticate(request: Request) -> Principal:
    credential = get_credential(request)
    if credential:
        return await authenticate_credential(request, credential)
    services, certificate = get_services(request), _get_client_certificate(request)
    if certificate and services.runtime.settings.auth.client_certificates:
        return await _verify(request, services.auth.certificate_authenticator, certificate)
    await record_event(request, "access", "missing", actor="")
    raise MissingCredentials("No credentials. Send `Authorization: Bearer` with a token from /auth/token.")


async def _verify(request: Request, authenticator: Authenticator, credential: str) -> Principal:
    """Authenticate, and keep the principal in `request.state`."""
    try:
        principal = await authenticator.authenticate(credential, caller_address(request))
    except InvalidToken:
        await record_event(request, "access", "invalid", actor="")
        raise
    except SubjectBarred as error:
        await record_event(request, "access", "forbidden", actor=error.subject, code=error.code)
        raise
    request.scope["state"]["principal"] = principal
    if principal.key_id is not None:
        get_services(request).auth.key_uses.record(principal.key_id)
    structlog.contextvars.bind_contextvars(principal=principal.subject)
    return principal


def _get_client_certificate(request: Request) -> str | None:
    """Return the client's verified certificate as PEM, from ASGI's TLS extension.

    A browser sends its certificate with every request, even if a page of another site makes it. The user did not
    intend such a cross-site request, so its certificate is ignored.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return None
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
    return chain[0] if chain else None

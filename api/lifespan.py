"""What opens before the first request and closes after the last, in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api.deps import State
from api.errors import SettingsError
from api.http.draining import Draining
from api.prediction.admission import memory_for_images
from api.rate_limits.limiter import CallerLimits
from api.server.allocator import return_free_memory
from api.services.recording import open_journal
from api.settings import Settings
from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import UserStore
from auth.api_keys.last_use import LastUseRecorder
from auth.api_keys.store import KeyStore, is_api_key
from auth.authenticator import Authenticator, CredentialVerifiers, VerifiedCredential, token_targets
from auth.certificates import CertificateUsers
from auth.changes import ChangeFeed
from auth.clients import ClientStore
from auth.errors import WeakSigningKey
from auth.login.service import LoginService
from auth.login.throttle import LoginThrottle
from auth.login.totp import OneTimeCodes
from auth.quotas.meter import UsageMeter
from auth.sessions import SessionStore
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.keyring import Keyring
from model.backends.base import Backend
from model.serving.memory_budget import MemoryBudget
from model.serving.queue import QueueLimits
from model.serving.service import PredictionService
from monitoring.audit.store import AuditStore
from monitoring.audit.trail import AuditTrail
from monitoring.errors import LedgerFull
from monitoring.health import Check, Health
from monitoring.ledger.ledger import Ledger
from monitoring.ledger.ledger import State as LedgerState
from monitoring.ledger.reader import LedgerReader
from monitoring.memory import memory_limit_bytes
from monitoring.metrics import Metrics
from monitoring.sentry import ErrorReporter
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import ping

log = structlog.get_logger("atalaya.lifespan")

KEY_FILE_POLL_S = 0.5
PING_LIMIT_S = 0.8

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


def make_lifespan(
    settings: Settings,
    keyring: Keyring,
    metrics: Metrics,
    reporter: ErrorReporter,
    draining: Draining,
    limits: CallerLimits,
    open_model: Callable[[], Backend],
) -> Lifespan:
    """Open the database and the model, and hand them to the requests."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, reporter.close)
            engine = open_engine(settings.database_url.get_secret_value())
            stack.push_async_callback(engine.dispose)
            backend = await asyncio.to_thread(open_model)
            stack.callback(backend.close)
            service = _service(settings, backend, metrics)
            stack.callback(service.close)
            await stack.enter_async_context(limits.running())
            _describe(metrics, backend)
            trail = AuditTrail(AuditStore(engine), metrics.audit_failures.inc)
            await stack.enter_async_context(trail.running())
            changes = ChangeFeed(engine)
            tokens = TokenAuthority(keyring, token_policy(settings))
            keys, key_uses = KeyStore(engine), LastUseRecorder(engine)
            stack.push_async_callback(key_uses.close)
            meter = UsageMeter(engine)
            ledger = Ledger(open_journal(settings, meter), _ledger_state(metrics), metrics.ledger_entries.inc)
            await stack.enter_async_context(ledger)
            authenticator = _authenticator(tokens, keys, changes, await _external_issuers(stack, settings))
            await changes.catch_up()
            _in_background(stack, changes.follow())
            _in_background(stack, key_uses.follow())
            _in_background(stack, _watch_keys(settings, keyring))
            hasher = PasswordHasher()
            stack.callback(hasher.close)
            accounts, codes = AccountService(UserStore(engine), hasher), one_time_codes(engine, settings)
            return_free_memory()
            memory = MemoryBudget(memory_for_images(settings), on_change=metrics.memory_reserved_bytes.set)
            yield State(
                settings=settings,
                metrics=metrics,
                audit=trail,
                accounts=accounts,
                codes=codes,
                logins=LoginService(accounts, LoginThrottle(engine), codes),
                sessions=SessionStore(engine, settings.auth.session_seconds),
                clients=ClientStore(engine),
                keys=keys,
                key_uses=key_uses,
                changes=changes,
                keyring=keyring,
                tokens=tokens,
                authenticator=authenticator,
                certificates=_certificate_desk(engine, settings, changes),
                meter=meter,
                ledger=ledger,
                history=LedgerReader(engine),
                service=service,
                memory=memory,
                health=Health(_checks(engine, ledger, limits)),
                draining=draining,
            )

    return lifespan


def open_keyring(settings: Settings) -> Keyring:
    """Raises SettingsError, WeakSigningKey."""
    return Keyring(settings.auth.signing_algorithm, settings.signing_keys())


def token_policy(settings: Settings) -> TokenPolicy:
    return TokenPolicy(settings.issuer, settings.auth.audience, settings.auth.access_token_seconds)


def one_time_codes(engine: AsyncEngine, settings: Settings) -> OneTimeCodes:
    key = settings.auth.data_key
    return OneTimeCodes(engine, key.get_secret_value() if key else None)


async def _external_issuers(stack: AsyncExitStack, settings: Settings) -> CredentialVerifiers:
    """None without a setting: the client would cost start-up time and memory for nothing."""
    if not settings.auth.issuers:
        return []
    import httpx

    client = await stack.enter_async_context(httpx.AsyncClient())
    issuers = ExternalIssuers((entry.trusted() for entry in settings.auth.issuers), client)
    stack.push_async_callback(issuers.close)
    return [(issuers.accepts, issuers.verify)]


def _authenticator(
    tokens: TokenAuthority, keys: KeyStore, changes: ChangeFeed, outside: CredentialVerifiers
) -> Authenticator:
    async def own_token(credential: str) -> VerifiedCredential:
        principal = tokens.verify(credential)
        assert principal.expires_at is not None  # noqa: S101  (a token of ours always expires)
        return VerifiedCredential(principal, principal.expires_at.timestamp(), token_targets(principal))

    return Authenticator([(is_api_key, keys.verify), *outside, (lambda _: True, own_token)], changes)


def _certificate_desk(engine: AsyncEngine, settings: Settings, changes: ChangeFeed) -> Authenticator:
    """Apart from the other credentials: no header of a caller can pass for a certificate."""
    mapped = CertificateUsers(UserStore(engine), settings.auth.client_certificates)
    return Authenticator([(lambda _: True, mapped.verify)], changes)


def _in_background(stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    """Run until the stack unwinds."""
    task = asyncio.create_task(work)

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)


async def _watch_keys(settings: Settings, keyring: Keyring) -> None:
    """Read the file of signing keys anew within a second of its change; an unfit one changes nothing."""
    path = settings.auth.signing_key_file
    if path is None:
        return
    seen = _changed_at(path)
    while True:
        await asyncio.sleep(KEY_FILE_POLL_S)
        if (now := _changed_at(path)) == seen:
            continue
        seen = now
        try:
            keyring.replace(settings.signing_keys())
            log.info("signing_keys_read", kid=keyring.signing.kid)
        except (SettingsError, WeakSigningKey) as error:
            log.error("signing_keys_refused", code=error.code)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _service(settings: Settings, backend: Backend, metrics: Metrics) -> PredictionService:
    return PredictionService(
        backend,
        workers=settings.inferences_at_once,
        limits=QueueLimits(settings.model.queue_limit, settings.model.queue_seconds),
        on_stage=lambda stage, seconds: metrics.stage_seconds.labels(stage).observe(seconds),
    )


def _describe(metrics: Metrics, backend: Backend) -> None:
    info = backend.info
    metrics.model_info.labels(info.name, info.version, info.digest, info.backend).set(1)
    metrics.memory_limit_bytes.set(memory_limit_bytes())
    log.info("model_loaded", model=info.full_name, digest=info.digest, backend=info.backend)


def _ledger_state(metrics: Metrics) -> Callable[[LedgerState, int], None]:
    def tell(now: LedgerState, spooled: int) -> None:
        for state in LedgerState:
            metrics.ledger_state.labels(state).set(state is now)
        metrics.ledger_spooled.set(spooled)

    return tell


def _checks(engine: AsyncEngine, ledger: Ledger, limits: CallerLimits) -> dict[str, Check]:
    async def database() -> str | None:
        try:
            async with asyncio.timeout(PING_LIMIT_S):
                await ping(engine)
        except (DatabaseUnavailable, TimeoutError) as error:
            if ledger.state is not LedgerState.SPOOLING:
                raise
            return type(error).__name__  # tokens are still known, and answers are still recorded
        return None

    async def recording() -> str | None:
        if ledger.state is LedgerState.FULL:
            raise LedgerFull
        return None if ledger.state is LedgerState.WRITING else ledger.state

    async def model() -> None:
        """Loaded and warmed before the first request was taken."""

    shared = {"limits": limits.word} if limits.shared else {}
    return {"database": database, "ledger": recording, **shared, "model": model}

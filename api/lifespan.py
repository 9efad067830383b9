"""What opens before the first request and closes after the last, in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import numpy as np
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy.ext.asyncio import AsyncEngine

from api.allocator import return_free_memory
from api.deps import State
from api.settings import Settings
from auth.accounts import Accounts
from auth.database import open_engine, ping
from auth.passwords import PasswordHasher
from auth.tokens import TokenAuthority, TokenPolicy, load_signing_key
from auth.users import UserStore
from model.backends import Backend, open_backend
from model.images import INPUT_SIZE
from model.service import PredictionService
from monitoring.health import Check
from monitoring.memory import memory_limit_bytes
from monitoring.metrics import Metrics
from monitoring.sentry import ErrorReporter

log = structlog.get_logger("atalaya.lifespan")

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


def lifespan_of(
    settings: Settings, tokens: TokenAuthority, registry: CollectorRegistry, metrics: Metrics, reporter: ErrorReporter
) -> Lifespan:
    """Open the database, the model and the private metrics port, and hand them to the requests."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, reporter.close)
            engine = open_engine(settings.database_url.get_secret_value())
            stack.push_async_callback(engine.dispose)
            backend = await asyncio.to_thread(_open_warm, settings.model.url)
            stack.callback(backend.close)
            service = _service(settings, backend, metrics)
            stack.callback(service.close)
            if settings.metrics_port is not None:
                _serve_metrics(stack, settings.metrics_port, registry)
            _describe(metrics, backend)
            return_free_memory()
            yield State(
                settings=settings,
                metrics=metrics,
                accounts=Accounts(UserStore(engine), PasswordHasher()),
                tokens=tokens,
                service=service,
                readiness=_readiness(engine),
            )

    return lifespan


def token_authority(settings: Settings) -> TokenAuthority:
    """Raises SettingsError, WeakSigningKey."""
    key = load_signing_key(settings.auth.signing_algorithm, settings.signing_key())
    policy = TokenPolicy(settings.auth.issuer, settings.auth.audience, settings.auth.access_token_seconds)
    return TokenAuthority(key, policy)


def _open_warm(url: str) -> Backend:
    """The first inference allocates: better before the first request than in it."""
    backend = open_backend(url)
    backend.predict(np.zeros((1, *INPUT_SIZE, 3), np.uint8))
    return backend


def _service(settings: Settings, backend: Backend, metrics: Metrics) -> PredictionService:
    return PredictionService(
        backend,
        workers=settings.model.workers,
        queue_limit=settings.model.queue_limit,
        on_stage=lambda stage, seconds: metrics.stage_seconds.labels(stage).observe(seconds),
    )


def _serve_metrics(stack: AsyncExitStack, port: int, registry: CollectorRegistry) -> None:
    server, thread = start_http_server(port, registry=registry)
    stack.callback(thread.join)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)


def _describe(metrics: Metrics, backend: Backend) -> None:
    info = backend.info
    metrics.model_info.labels(info.name, info.version, info.digest, info.backend).set(1)
    metrics.memory_limit_bytes.set(memory_limit_bytes())
    log.info("model_loaded", model=info.full_name, digest=info.digest, backend=info.backend)


def _readiness(engine: AsyncEngine) -> dict[str, Check]:
    async def database() -> None:
        await ping(engine)

    async def model() -> None:
        """Loaded and warmed before the first request was taken."""

    return {"database": database, "model": model}

"""Services that describe the running process: its settings, metrics and health, and whether it is shutting down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.http.draining import Draining
from api.rate_limits.limiter import CallerLimits
from api.services.measuring.engines import find_engine_problem
from api.services.mirror.problem import read_problem
from api.services.serving import ServingServices
from api.settings import Settings
from api.settings.urls import parse_headers
from monitoring.errors import LedgerFull
from monitoring.health import Check, Health
from monitoring.ledger.ledger import Ledger, LedgerState
from monitoring.metrics import Metrics
from monitoring.reporting.sentry import ErrorReporter, name_release, open_reporter
from monitoring.tracing.tracer import SpanExporter, Tracer
from storage.errors import DatabaseUnavailable
from storage.transactions import ping

PING_LIMIT_S = 0.8


class RuntimeServices(Struct, frozen=True):
    """None of these services needs to be opened or closed."""

    settings: Settings
    metrics: Metrics
    health: Health
    draining: Draining
    limits: CallerLimits


class DatabaseCheck:
    """Pings the database, one ping at a time. A ping that takes too long goes on, and the next call waits for it.

    Only `close` cancels a ping. The readiness check has a longer limit, which cancels only its wait: SQLite's driver
    leaves a task behind if it is cancelled again while it closes the connection of a cancelled statement.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._running: asyncio.Task[None] | None = None

    async def ping(self) -> None:
        """Raises DatabaseUnavailable, and TimeoutError after PING_LIMIT_S."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(ping(self._engine))
            self._running.add_done_callback(_mark_retrieved)
        running = self._running
        done, _ = await asyncio.wait([running], timeout=PING_LIMIT_S)
        if not done:
            raise TimeoutError
        await running

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])


def _mark_retrieved(task: asyncio.Task[None]) -> None:
    """Keep asyncio from logging an error that no check waited for: the next check pings again."""
    if not task.cancelled():
        task.exception()


@asynccontextmanager
async def open_health_checks(
    settings: Settings, engine: AsyncEngine, ledger: Ledger, limits: CallerLimits, serving: ServingServices
) -> AsyncIterator[Mapping[str, Check]]:
    """Yield the readiness checks, by the name that /readyz shows."""
    check = DatabaseCheck(engine)

    async def database() -> str | None:
        try:
            await check.ping()
        except (DatabaseUnavailable, TimeoutError) as error:
            if not settings.ledger.enabled:
                raise
            # Still ready: credentials verified earlier are accepted, and the ledger's entries go to the spool. Spooling
            # begins with a prediction, and a load balancer would send none to a gateway that is not ready.
            return type(error).__name__
        return None

    async def recording() -> str | None:
        if ledger.state is LedgerState.FULL:
            raise LedgerFull
        return None if ledger.state is LedgerState.WRITING else ledger.state

    async def model() -> str | None:
        """Raises WorkerStuck, and EngineUnavailable while no inference engine works and there is no local model.

        While the version that the alias names cannot be served or pulled, the state is the code of the reason. The
        model itself needs no check: it was loaded and warmed up before the first request was accepted.
        """
        serving.predictions.check_threads()
        engine_problem = find_engine_problem(serving.predictions.backend)
        if engine_problem is not None:
            return engine_problem
        if serving.follower is None:
            return None
        return serving.follower.problem or await asyncio.to_thread(read_problem, settings)

    shared = {"limits": limits.check_store} if limits.shared else {}
    try:
        yield {"database": database, "ledger": recording, **shared, "model": model}
    finally:
        await check.close()


def open_error_reporter(settings: Settings, on_dropped: Callable[[], object]) -> ErrorReporter:
    """Return a reporter to the project of SENTRY_DSN; without it, one that reports nothing."""
    dsn = settings.sentry_dsn.get_secret_value() if settings.sentry_dsn else None
    commit = settings.git_commit_sha or settings.railway_git_commit_sha
    return open_reporter(
        dsn,
        environment=settings.railway_environment_name or settings.environment,
        release=name_release(version("atalaya"), commit),
        share=settings.sentry_sample_rate,
        on_dropped=on_dropped,
    )


def open_tracer(settings: Settings, metrics: Metrics) -> Tracer:
    """Return a tracer that exports to OTEL_EXPORTER_OTLP_ENDPOINT; without it, one that only reads `traceparent`."""
    return Tracer(_open_exporter(settings, metrics), settings.otel_traces_sampler_arg)


def _open_exporter(settings: Settings, metrics: Metrics) -> SpanExporter | None:
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    from monitoring.tracing.otlp import OtlpExporter  # takes 3 MB

    headers = settings.otel_exporter_otlp_headers
    return OtlpExporter(
        settings.otel_exporter_otlp_endpoint,
        parse_headers(headers.get_secret_value()) if headers is not None else {},
        describe_service(settings),
        metrics.spans_dropped.inc,
    )


def describe_service(settings: Settings) -> dict[str, str]:
    """Return the resource attributes of this service in traces, as OpenTelemetry names them."""
    attributes = {
        "service.name": settings.service_name,
        "service.namespace": settings.railway_project_name,
        "service.version": version("atalaya"),
        "deployment.environment.name": settings.railway_environment_name or settings.environment,
        "cloud.account.id": settings.railway_project_id,
        "cloud.resource_id": settings.railway_service_id,
    }
    return {name: value for name, value in attributes.items() if value}

"""Opens all services before the first request, and closes them after the last one, in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI

from api.deps import AppState, Services
from api.http.draining import Draining
from api.http.refusals import classify_error
from api.prediction.pipeline import PredictionPipeline
from api.prediction.quotas import QuotaChargeRecorder
from api.rate_limits.limiter import CallerLimits
from api.server.tls import ServerTls
from api.services.aliases.moves import open_alias_mover
from api.services.auth import open_auth_services
from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.canary.running import try_candidates
from api.services.measuring.certificates import watch_certificates
from api.services.measuring.open import measure_in_background
from api.services.measuring.shared_values import follow_readiness
from api.services.recording import RecordingServices, open_recording_services
from api.services.runtime import RuntimeServices, open_health_checks
from api.services.secrets.applying import follow_secrets
from api.services.secrets.signing_keys import open_keyring
from api.services.serving import ServingServices, open_backend, open_serving_services
from api.settings import Settings
from auth.quotas.meter import UsageMeter
from model.backends.base import Backend
from monitoring.health import Health
from monitoring.logs.outputs import Output, counting_dropped_lines
from monitoring.metrics import Metrics
from monitoring.reporting.logged_errors import reporting_logged_errors
from monitoring.reporting.telemetry import Telemetry
from storage.engine import open_engine
from storage.logins import DatabaseLogin

DATABASE_WAIT_S = 5

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[AppState]]


def make_lifespan(
    settings: Settings,
    telemetry: Telemetry,
    draining: Draining,
    activity: Activity,
    limits: CallerLimits,
    open_model: Callable[[], Backend],
    tls: ServerTls | None = None,
) -> Lifespan:
    """Return a lifespan that opens the model, the database and the services for the requests. Raises SettingsError."""
    keyring = open_keyring(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[AppState]:
        metrics = telemetry.metrics
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            stack.enter_context(counting_dropped_lines(partial(_count_dropped_lines, metrics)))
            stack.push_async_callback(asyncio.to_thread, telemetry.close)
            stack.enter_context(reporting_logged_errors(telemetry.reporter))
            url = settings.database_url.get_secret_value()
            engine = open_engine(url, login := DatabaseLogin(url), DATABASE_WAIT_S)
            stack.push_async_callback(engine.dispose)
            activity.close_when_idle(engine.dispose)
            activity.close_when_idle(limits.close_connections)
            backend = await enter(open_backend(open_model, metrics))
            await enter(limits.running())
            meter = UsageMeter(engine)
            recording = await enter(
                open_recording_services(settings, engine, login, metrics, QuotaChargeRecorder(meter), activity)
            )
            auth = await enter(open_auth_services(settings, engine, keyring, meter, metrics, activity))
            if recording.images is not None:
                recording.images.consents.subscribe_to(auth.changes)
            serving = await enter(open_serving_services(settings, backend, metrics, draining, activity))
            mover = await enter(open_alias_mover(settings, recording.ledger))
            checks = await enter(open_health_checks(settings, engine, recording.ledger, limits, serving))
            health = Health(checks)
            # The limits never make the gateway unready, and a platform could not put it to sleep if they were checked.
            observed = Health({name: check for name, check in checks.items() if name != "limits"})
            await enter(
                measure_in_background(
                    settings, engine, auth.changes, meter, serving.predictions.queue, metrics, activity
                )
            )
            if tls is not None:
                await enter(run_in_background(watch_certificates(tls, settings, metrics)))
            await enter(run_in_background(follow_readiness(observed, draining, metrics, activity)))
            await enter(follow_secrets(settings, keyring, login, recording, telemetry, activity, auth.changes))
            runtime = RuntimeServices(settings, metrics, health, draining, limits)
            pipeline = _make_pipeline(settings, serving, recording, meter, metrics)
            canary = await enter(
                try_candidates(
                    settings, serving, mover, engine, partial(recording.ledger.record, charge=None), metrics, activity
                )
            )
            await enter(run_in_background(activity.watch()))
            yield {"services": Services(auth, serving, recording, runtime, canary, mover), "pipeline": pipeline}

    return lifespan


def _make_pipeline(
    settings: Settings, serving: ServingServices, recording: RecordingServices, meter: UsageMeter, metrics: Metrics
) -> PredictionPipeline:
    return PredictionPipeline(
        serving, recording, meter, metrics, classify_error, settings.model.deadline_seconds, settings.model.abstain
    )


def _count_dropped_lines(metrics: Metrics, output: Output, lines: int) -> None:
    metrics.log_lines_dropped.labels(output).inc(lines)

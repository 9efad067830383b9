"""Metrics that are read every few seconds from the database, the registry and the readiness checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from api.http.draining import Draining
from api.services.background.activity import Activity
from api.services.registry import open_registry
from api.settings import Settings
from api.settings.quality.tasks import find_task_days
from auth.quotas.meter import UsageMeter
from model.registry.errors import RegistryError
from monitoring.health import Health
from monitoring.metrics import Metrics
from monitoring.quality.evaluation_store import EvaluationStore
from monitoring.tasks.store import TaskRunStore
from storage.errors import DatabaseUnavailable

INTERVAL_S = 5.0
_COMMANDS_INTERVAL_S = 15.0
_QUOTA_INTERVAL_S = 60.0

log = structlog.get_logger("atalaya.measuring")


async def follow_commands(settings: Settings, engine: AsyncEngine, metrics: Metrics, activity: Activity) -> None:
    """Show what scheduled commands have recorded, until cancelled."""
    days, runs, evaluations = find_task_days(settings), TaskRunStore(engine), EvaluationStore(engine)

    async def show() -> None:
        metrics.task_runs = await runs.list()
        metrics.calendar = await runs.read_calendar(days)
        metrics.evaluation = await evaluations.find_latest()
        metrics.has_evaluation_loss = await evaluations.find_loss() is not None

    await _repeat(show, activity, _COMMANDS_INTERVAL_S)


async def follow_quotas(meter: UsageMeter, metrics: Metrics, activity: Activity) -> None:
    """Show the used share of the quota that is closest to exhaustion, until cancelled."""

    async def show() -> None:
        metrics.quota_used_ratio.set(await meter.find_highest_share())

    await _repeat(show, activity, _QUOTA_INTERVAL_S)


async def follow_readiness(health: Health, draining: Draining, metrics: Metrics, activity: Activity) -> None:
    """Show what /readyz would respond, until cancelled."""

    async def show() -> None:
        metrics.ready.set((await health.check()).ready and not draining.begun)

    await _repeat(show, activity, INTERVAL_S)


async def follow_aliases(settings: Settings, metrics: Metrics, activity: Activity) -> None:
    """Show the aliases of the model that MODEL__URL names in the registry, until cancelled; return if it names none."""
    reference = settings.model.reference
    if reference is None:
        return
    registry = await asyncio.to_thread(open_registry, settings)

    async def show() -> None:
        state = await asyncio.to_thread(registry.read, reference.model)
        metrics.aliases = {(reference.model, alias, version): 1 for alias, version in state.aliases.items()}

    await _repeat(show, activity, INTERVAL_S)


async def _repeat(show: Callable[[], Awaitable[None]], activity: Activity, interval_s: float) -> None:
    """Await `show` again and again, until cancelled. After an error, what it has shown stays until it succeeds.

    Logs the first of consecutive unexpected errors.
    """
    failing = False
    while True:
        try:
            await show()
        except (DatabaseUnavailable, RegistryError):
            pass  # readiness and other metrics report it
        except Exception:  # the next attempt may succeed
            if not failing:
                log.exception("values_not_shown", source=show.__qualname__.partition(".")[0])
            failing = True
        else:
            failing = False
        await activity.sleep(interval_s)

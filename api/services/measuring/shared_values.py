"""Metrics that are read every few seconds from the database, the registry and the readiness checks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

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


async def follow_commands(settings: Settings, engine: AsyncEngine, metrics: Metrics, activity: Activity) -> None:
    """Show what scheduled commands have recorded, until cancelled.

    While the database is unavailable, the last values stay.
    """
    days, runs, evaluations = find_task_days(settings), TaskRunStore(engine), EvaluationStore(engine)
    while True:
        with suppress(DatabaseUnavailable):
            metrics.task_runs = await runs.list()
            metrics.calendar = await runs.read_calendar(days)
            metrics.evaluation = await evaluations.find_latest()
            metrics.has_evaluation_loss = await evaluations.find_loss() is not None
        await activity.sleep(_COMMANDS_INTERVAL_S)


async def follow_quotas(meter: UsageMeter, metrics: Metrics, activity: Activity) -> None:
    """Show the used share of the quota that is closest to exhaustion, until cancelled."""
    while True:
        with suppress(DatabaseUnavailable):
            metrics.quota_used_ratio.set(await meter.find_highest_share())
        await activity.sleep(_QUOTA_INTERVAL_S)


async def follow_readiness(health: Health, draining: Draining, metrics: Metrics, activity: Activity) -> None:
    """Show what /readyz would respond, until cancelled."""
    while True:
        metrics.ready.set((await health.check()).ready and not draining.begun)
        await activity.sleep(INTERVAL_S)


async def follow_aliases(settings: Settings, metrics: Metrics, activity: Activity) -> None:
    """Show the aliases of the model that MODEL__URL names in the registry, until cancelled; return if it names none.

    While the registry is unavailable, the last aliases read stay.
    """
    reference = settings.model.reference
    if reference is None:
        return
    registry = await asyncio.to_thread(open_registry, settings)
    while True:
        with suppress(RegistryError):
            state = await asyncio.to_thread(registry.read, reference.model)
            metrics.aliases = {(reference.model, alias, version): 1 for alias, version in state.aliases.items()}
        await activity.sleep(INTERVAL_S)

"""Values that are the same for all processes: from the database and the registry, read every few seconds."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.registry import open_registry
from api.settings import Settings
from model.registry.errors import RegistryError
from monitoring.metrics import Metrics
from monitoring.tasks.store import TaskRunStore
from storage.errors import DatabaseUnavailable

INTERVAL_S = 5.0


async def follow_task_runs(engine: AsyncEngine, metrics: Metrics) -> None:
    """Keep `metrics.task_runs` up to date until cancelled. While the database is unavailable, the last ones stay."""
    store = TaskRunStore(engine)
    while True:
        with suppress(DatabaseUnavailable):
            metrics.task_runs = await store.list()
        await asyncio.sleep(INTERVAL_S)


async def follow_aliases(settings: Settings, metrics: Metrics) -> None:
    """Show the aliases of the model that MODEL__URL names, until cancelled; nothing if it is in no registry.

    While the registry is unavailable, the last known aliases stay.
    """
    reference = settings.model.reference
    if reference is None:
        return
    registry = await asyncio.to_thread(open_registry, settings)
    while True:
        with suppress(RegistryError):
            state = await asyncio.to_thread(registry.read, reference.model)
            metrics.aliases = {(reference.model, alias, version): 1 for alias, version in state.aliases.items()}
        await asyncio.sleep(INTERVAL_S)

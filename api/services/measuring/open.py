"""Measures the process and its dependencies while it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.measuring.certificates import report_certificates
from api.services.measuring.sampling import sample_process
from api.services.measuring.shared_values import (
    follow_aliases,
    follow_commands,
    follow_quotas,
)
from api.settings import Settings
from auth.changes import ChangeFeed
from auth.quotas.meter import UsageMeter
from model.serving.queue import PredictionQueue
from monitoring.metrics import Metrics


@asynccontextmanager
async def measure_in_background(
    settings: Settings,
    engine: AsyncEngine,
    changes: ChangeFeed,
    meter: UsageMeter,
    queue: PredictionQueue,
    metrics: Metrics,
    activity: Activity,
) -> AsyncIterator[None]:
    """Keep metrics that no request changes up to date."""
    metrics.queue_capacity.set(settings.model.queue_limit)
    report_certificates(settings, metrics)
    async with (
        run_in_background(sample_process(queue, changes, engine.dialect.name, metrics, activity)),
        run_in_background(follow_commands(settings, engine, metrics, activity)),
        run_in_background(follow_aliases(settings, metrics, activity)),
        run_in_background(follow_quotas(meter, metrics, activity)),
    ):
        yield

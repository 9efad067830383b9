"""The resources and costs of the gateway: measured in the background, and computed for a caller on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from math import nan

from sqlalchemy import Engine

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.measuring.quality import QualityService
from api.services.measuring.refreshing import Refreshing
from api.settings import Settings
from monitoring.cost.month import NO_COST, Cost, MonthCost, compute_month
from monitoring.cost.resources import HourResources, ResourceMeter
from monitoring.cost.store import CostStore
from monitoring.errors import LedgerUnavailable
from monitoring.metrics import Metrics

_FIRST_REFRESH_S, _REFRESH_S = 5.0, 60.0


class CostService:
    """Works in the thread of `quality`, with its connection. `quality` also keeps the sums of the requests."""

    def __init__(self, settings: Settings, quality: QualityService, metrics: Metrics) -> None:
        self._prices = settings.cost.prices()
        self._is_recorded = settings.ledger.enabled
        self._call = quality.call
        self._metrics = metrics
        self._meter = ResourceMeter(settings.web_concurrency)
        self._unwritten: list[HourResources] = []

    async def compute(self, caller: str, month: str) -> Cost:
        """Return the costs of a caller in a month, such as 2026-11; the last minute may be missing.

        Raises LedgerUnavailable.
        """
        costs = await self._compute_month(month, caller)
        return next(iter(costs.callers.values()), NO_COST)

    async def refresh(self) -> None:
        """Record the resources used since the last refresh, and update the metrics. Raises LedgerUnavailable."""
        await self.record_resources()
        month = await self._compute_month(f"{datetime.now(UTC):%Y-%m}", "")
        amounts = month.whole.amounts
        for resource, amount in (("processor", amounts.processor), ("memory", amounts.memory), ("sent", amounts.sent)):
            self._metrics.month_cost.labels(resource).set(amount)
        self._metrics.month_cost_predictions.set(month.whole.traffic.predictions * month.measured_share)
        self._metrics.month_sleep_saving.set(nan if month.sleep is None else month.sleep.saves.total)

    async def record_resources(self) -> None:
        """Write the resources used since the last successful write. Raises LedgerUnavailable."""
        await self._call(self._write_resources)

    def _write_resources(self, engine: Engine) -> None:
        """Runs entirely in the thread, so that cancelling the task that waits for it cannot stop it halfway."""
        self._unwritten += self._meter.measure()
        CostStore(engine).add_resources(self._unwritten)
        self._unwritten.clear()

    async def _compute_month(self, month: str, caller: str) -> MonthCost:
        def compute(engine: Engine) -> MonthCost:
            return compute_month(
                CostStore(engine).read_month(month, caller), self._prices, is_recorded=self._is_recorded
            )

        return await self._call(compute)


@asynccontextmanager
async def open_cost_service(
    settings: Settings, quality: QualityService, metrics: Metrics, activity: Activity
) -> AsyncIterator[CostService]:
    """Measure costs in the background until the context ends."""
    service = CostService(settings, quality, metrics)
    try:
        async with run_in_background(Refreshing("cost", service.refresh, _REFRESH_S).run(activity, _FIRST_REFRESH_S)):
            yield service
    finally:
        with suppress(LedgerUnavailable):
            await service.record_resources()

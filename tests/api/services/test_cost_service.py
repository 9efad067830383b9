"""The background work on costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.measuring.cost import CostService, open_cost_service
from api.services.measuring.quality import QualityService
from api.settings import Settings
from monitoring.cost.resources import HourResources
from monitoring.cost.store import CostStore
from monitoring.metrics import Metrics
from monitoring.quality.following import CHUNK
from storage.engine import open_blocking_engine
from tests.monitoring.quality.entries import REFUSED, append
from tests.support.polling import PATIENCE_S

HOUR = "2026-11-23T09"
CHUNKS = 3


class OneMeasurement:
    """Measures a second of a processor, once."""

    def __init__(self) -> None:
        self._measured = [HourResources(HOUR, 1.0, 0.0, 0)]

    def measure(self) -> list[HourResources]:
        measured, self._measured = self._measured, []
        return measured


@pytest.fixture
async def quality(settings: Settings) -> AsyncIterator[QualityService]:
    """The service in whose thread costs are measured."""
    engine = open_blocking_engine(settings.database_url.get_secret_value(), 30)
    service = QualityService(engine, Metrics(CollectorRegistry()), settings)
    yield service
    await service.close()


async def test_a_cancelled_measurement_counts_once(
    quality: QualityService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the gateway shuts down while its thread writes what was measured, that is not written again."""
    began, go_on, add = asyncio.Event(), threading.Event(), CostStore.add_resources
    loop = asyncio.get_running_loop()

    def add_slowly(store: CostStore, measured: Any) -> None:
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(PATIENCE_S)
        add(store, measured)

    monkeypatch.setattr(CostStore, "add_resources", add_slowly)
    monkeypatch.setattr("api.services.measuring.cost.ResourceMeter", lambda _: OneMeasurement())
    async with open_cost_service(settings, quality, Metrics(CollectorRegistry()), Activity(None)) as service:
        writing = asyncio.create_task(service.record_resources())
        await asyncio.wait_for(began.wait(), PATIENCE_S)
        writing.cancel()
        go_on.set()
    (hour,) = (await quality.call(lambda blocking: CostStore(blocking).read_month(HOUR[:7]))).hours
    assert hour.resources is not None
    assert hour.resources.processor_s == 1.0


@pytest.mark.parametrize("of_cost", [True, False])
async def test_an_idle_gateway_leaves_the_database_alone(
    quality: QualityService, settings: Settings, monkeypatch: pytest.MonkeyPatch, of_cost: bool
) -> None:
    """Once the gateway is idle, the sums of a long ledger go on only with the next request."""
    monkeypatch.setattr("api.services.measuring.quality._PAUSE", 0)
    await asyncio.to_thread(append, settings.database_url.get_secret_value(), [REFUSED] * CHUNK * CHUNKS)
    activity, idle, added, statements = Activity(0.01), asyncio.Event(), asyncio.Event(), list[str]()
    activity.when_idle(idle.set)
    loop = asyncio.get_running_loop()

    def note(statement: str) -> None:
        statements.append(statement)
        if statement.startswith("UPDATE"):
            loop.call_soon_threadsafe(added.set)

    blocking = await quality.call(lambda engine: engine)
    event.listen(blocking, "before_cursor_execute", lambda *arguments: note(arguments[2]))
    service = CostService(settings, quality, Metrics(CollectorRegistry())) if of_cost else quality
    async with asyncio.timeout(PATIENCE_S), run_in_background(activity.watch()):
        await idle.wait()
        refreshing = asyncio.create_task(service.refresh(activity))
        await added.wait()
        await quality.call(lambda _: None)  # the first chunk is finished
        seen = len(statements)
        await asyncio.sleep(0.2)
        assert (len(statements), refreshing.done()) == (seen, False)
        activity.begin_request()
        await refreshing

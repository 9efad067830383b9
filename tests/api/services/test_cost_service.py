"""The background work on costs and on the quality of live traffic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from msgspec.structs import asdict
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, event, text
from structlog.testing import capture_logs

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.measuring.cost import open_cost_service
from api.services.measuring.quality import QualityService
from api.services.measuring.refreshing import Refreshing
from api.settings import Settings
from monitoring.cost.resources import HourResources
from monitoring.cost.store import CostStore
from monitoring.metrics import Metrics
from monitoring.quality.drift.store import DriftFinding
from monitoring.quality.drift.tables import drift_findings
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
    """A measurement that is being written while the gateway shuts down is not written again."""
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


async def test_an_idle_gateway_leaves_the_database_alone(
    quality: QualityService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle gateway stops summing a long ledger, and continues with the next request."""
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
    async with asyncio.timeout(PATIENCE_S), run_in_background(activity.watch()):
        await idle.wait()
        refreshing = asyncio.create_task(quality.refresh(activity))
        await added.wait()
        await quality.call(lambda _: None)  # the first chunk is finished
        seen = len(statements)
        for _ in range(10 * CHUNKS):  # the thread works in order: it would meanwhile process all other chunks
            await quality.call(lambda _: None)
        assert (len(statements), refreshing.done()) == (seen, False)
        activity.begin_request()
        await refreshing


async def test_a_failure_is_logged_once(quality: QualityService) -> None:
    """While a table is missing, one warning names the class of the database's error; then the recovery is logged."""

    async def rename(before: str, after: str) -> None:
        def execute(engine: Engine) -> None:
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))

        await quality.call(execute)

    refreshing = Refreshing("quality", partial(quality.refresh, Activity(None)), 1)
    await rename("prediction_sums", "away")
    with capture_logs() as logs:
        for _ in range(2):
            await refreshing.refresh_once()
        await rename("away", "prediction_sums")
        await refreshing.refresh_once()
    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("quality_not_refreshed", "warning"),
        ("quality_refreshed", "info"),
    ]
    assert logs[0]["reason"] in {"OperationalError", "UndefinedTable"}


async def test_reading_labels_delays_nothing_else(quality: QualityService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs and drift can be read while the results of a model are computed from its labels."""
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def compute_slowly(*_: object) -> list[object]:
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(PATIENCE_S)
        return []

    monkeypatch.setattr("api.services.measuring.quality.compute_versions", compute_slowly)
    computing = asyncio.create_task(quality.compute("tiny", None, None))
    try:
        async with asyncio.timeout(PATIENCE_S / 2):
            await began.wait()
            await quality.call(lambda engine: CostStore(engine).read_month(HOUR[:7]))
            assert (await quality.report_drift()).models == []
    finally:
        go_on.set()
    assert await computing == []


async def test_refreshing_removes_old_findings(quality: QualityService) -> None:
    """A running gateway removes drift findings that are older than the retention."""
    at = "2001-01-01T00:00:00.000000Z"
    ended = DriftFinding("tiny-v1.0", "ana", "brightness", at, at, "lower", 0.5, 0.3, ended_at=at)

    def insert(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(drift_findings.insert(), asdict(ended))

    def count(engine: Engine) -> int:
        with engine.begin() as connection:
            return len(connection.execute(drift_findings.select()).all())

    await quality.call(insert)
    assert await quality.call(count) == 1
    await quality.refresh(Activity(None))
    assert await quality.call(count) == 0

"""Switching from the artefact to its prepared copy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.services.background import run_in_background
from api.services.opening import open_url
from api.services.prepared_copies import keeping
from api.services.prepared_copies.keeping import keep_prepared
from api.settings import Settings
from model.backends.base import Backend
from model.backends.prepared.copies import GRAPH
from model.backends.stub import StubBackend
from model.serving.memory_budget import MemoryBudget
from model.serving.service import PredictionService
from monitoring.metrics import Metrics
from tests.api.services.prepared_copies.copies import MEMORY, count_builds, serves_a_copy
from tests.model.canary.trials import start_trial
from tests.model.serving.gated import png
from tests.support.polling import wait_until_async


async def read_problem(settings: Settings, service: PredictionService, memory: MemoryBudget) -> str:
    """Prepare the model until its copy is built and not loaded, and return the reason in the log."""
    shown, event = CollectorRegistry(), "prepared_copy_not_loaded"
    with capture_logs() as logs:
        async with run_in_background(keep_prepared(settings, service, memory, Metrics(shown))):
            await wait_until_async(lambda: event in {entry["event"] for entry in logs})
    assert count_builds(shown) == 1
    return next(str(entry["reason"]) for entry in logs if entry["event"] == event)


class CloseRecorder:
    """Counts the calls of `close` of back ends."""

    closed = 0

    def record(self, backend: Backend) -> Backend:
        close = backend.close

        def close_and_count() -> None:
            self.closed += 1
            close()

        backend.close = close_and_count  # type: ignore[method-assign]
        return backend


async def test_a_switch_waits_for_the_end_of_a_trial(
    settings: Settings, service: PredictionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial compares its candidate with the back end in service, which is not replaced by its copy meanwhile."""
    monkeypatch.setattr(keeping, "_POLL_S", 0.01)
    served, shown, memory = service.backend, CollectorRegistry(), MemoryBudget(MEMORY)
    trial, _ = start_trial(service, StubBackend())
    async with run_in_background(keep_prepared(settings, service, memory, Metrics(shown))):
        await wait_until_async(lambda: count_builds(shown) == 1)
        await asyncio.sleep(0.1)  # several checks
        assert service.backend is served
        assert (service.trial, memory.reserved) == (trial, 0)
        service.end_trial()
        await wait_until_async(lambda: serves_a_copy(service))
    assert count_builds(shown) == 1


async def test_a_trial_that_starts_during_the_load_keeps_its_back_end(
    settings: Settings, service: PredictionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loaded copy is closed, and loaded again when the trial has ended."""
    monkeypatch.setattr(keeping, "_POLL_S", 0.01)
    loop, memory = asyncio.get_running_loop(), MemoryBudget(MEMORY)
    served, copies = service.backend, CloseRecorder()

    async def start() -> None:
        start_trial(service, StubBackend())

    def open_beside_a_trial(settings: Settings, url: str) -> Backend:
        asyncio.run_coroutine_threadsafe(start(), loop).result()
        monkeypatch.setattr(keeping, "open_url", open_url)
        return copies.record(open_url(settings, url))

    monkeypatch.setattr(keeping, "open_url", open_beside_a_trial)
    async with run_in_background(keep_prepared(settings, service, memory, Metrics(CollectorRegistry()))):
        await wait_until_async(lambda: copies.closed == 1)
        await wait_until_async(lambda: memory.reserved == 0)
        assert service.trial is not None
        assert service.backend is served
        service.end_trial()
        await wait_until_async(lambda: serves_a_copy(service))


async def test_the_artefact_is_closed_after_its_last_prediction(settings: Settings, service: PredictionService) -> None:
    """A request that is in progress during the switch keeps its back end until it ends."""
    artefact, memory = CloseRecorder(), MemoryBudget(MEMORY)
    artefact.record(service.backend)
    admitted, gate = asyncio.Event(), asyncio.Event()

    async def wait_at_gate(_: int) -> None:
        admitted.set()
        await gate.wait()

    request = asyncio.create_task(service.predict(png(8), wait_at_gate))
    await admitted.wait()
    async with run_in_background(keep_prepared(settings, service, memory, Metrics(CollectorRegistry()))):
        await wait_until_async(lambda: serves_a_copy(service))
        await asyncio.sleep(0.05)
        assert artefact.closed == 0
        assert memory.reserved > 0
        gate.set()
        assert (await request).model is not service.model
        await wait_until_async(lambda: artefact.closed == 1)
        await wait_until_async(lambda: memory.reserved == 0)


async def test_a_copy_that_does_not_fit_beside_the_model_is_for_the_next_start(
    settings: Settings, service: PredictionService
) -> None:
    """With too little memory for both forms of the model, the artefact stays in service, and the log says why."""
    served, memory = service.backend, MemoryBudget(MEMORY)
    many_threads = settings.model_copy(update={"model": settings.model.model_copy(update={"workers": 32})})
    reason = await read_problem(many_threads, service, memory)
    assert reason == "this machine has too little memory to load it beside the artefact"
    assert (service.backend, memory.reserved) == (served, 0)


async def test_an_unexpected_error_leaves_the_artefact_in_service(
    settings: Settings, service: PredictionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever prevents the load, the model is served, and the log says why not from its copy."""

    def fail(*_: object) -> Backend:
        raise PermissionError(13, "Permission denied", "model.onnx")

    served, memory = service.backend, MemoryBudget(MEMORY)
    monkeypatch.setattr(keeping, "open_url", fail)
    assert "Permission denied" in await read_problem(settings, service, memory)
    assert (service.backend, memory.reserved) == (served, 0)


async def test_a_copy_that_cannot_be_opened_is_tried_once(
    settings: Settings, service: PredictionService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the back end falls back to the artefact again, the one in service stays, and the copy is not built again."""

    def open_damaged(settings: Settings, url: str) -> Backend:
        for path in tmp_path.glob(f"prepared/*/{GRAPH}"):
            path.write_bytes(b"damaged")
        return open_url(settings, url)

    monkeypatch.setattr(keeping, "open_url", open_damaged)
    monkeypatch.setattr(keeping, "_POLL_S", 0)
    served, shown = service.backend, CollectorRegistry()
    with capture_logs() as logs:
        async with run_in_background(keep_prepared(settings, service, MemoryBudget(MEMORY), Metrics(shown))):
            await wait_until_async(lambda: "prepared_copy_not_loaded" in {entry["event"] for entry in logs})
            await asyncio.sleep(0.2)
    assert count_builds(shown) == 1
    assert service.backend is served
    (entry,) = [entry for entry in logs if entry["event"] == "prepared_copy_not_loaded"]
    assert entry["reason"] == f"it cannot be used: {GRAPH} differs from its record"
    assert shown.get_sample_value("atalaya_weights_loaded_total", {"origin": "rejected"}) == 1

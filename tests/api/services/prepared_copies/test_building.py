"""Preparing the model in service for the machine."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.services.background import run_in_background
from api.services.opening import open_url
from api.services.prepared_copies import building, keeping
from api.services.prepared_copies.keeping import keep_prepared
from api.services.registry import find_model_folder
from api.settings import Settings
from model.backends.base import Backend
from model.serving.memory_budget import MemoryBudget, Reservation
from model.serving.service import PredictionService
from monitoring.metrics import Metrics
from tests.api.services.prepared_copies.copies import MEMORY, count_builds, serves_a_copy
from tests.support.polling import wait_until_async


async def test_each_version_in_service_is_prepared(settings: Settings, service: PredictionService) -> None:
    """The first version and the one that replaces it are each served from a prepared copy once it is built."""
    shown, memory = CollectorRegistry(), MemoryBudget(MEMORY)
    async with run_in_background(keep_prepared(settings, service, memory, Metrics(shown))):
        await wait_until_async(lambda: serves_a_copy(service))
        replaced = service.replace_backend(open_url(settings, f"onnx://{find_model_folder(settings, '1.1')}"))
        replaced.result().close()
        assert not serves_a_copy(service)
        await wait_until_async(lambda: serves_a_copy(service))
        assert service.model.version == "1.1"
        await wait_until_async(lambda: memory.reserved == 0)
    assert count_builds(shown) == 2
    assert shown.get_sample_value("atalaya_weights_loaded_total", {"origin": "prepared"}) == 2


async def test_a_build_has_a_session_of_its_own(
    settings: Settings, service: PredictionService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the terminal of the gateway does not interrupt a build, because its process leads a session."""
    program = tmp_path / "python"
    record = "(Path(__file__).parent / 'leads').write_text(str(os.getsid(0) == os.getpid()))"
    program.write_text(f"#!{sys.executable}\nimport os\nfrom pathlib import Path\n{record}\nraise SystemExit(1)\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    shown = CollectorRegistry()
    async with run_in_background(keep_prepared(settings, service, MemoryBudget(MEMORY), Metrics(shown))):
        failed = {"outcome": "failed"}
        await wait_until_async(lambda: shown.get_sample_value("atalaya_preparations_total", failed) == 1)
    assert (tmp_path / "leads").read_text() == "True"


async def test_a_builder_that_cannot_start_is_a_failed_build(
    settings: Settings, service: PredictionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on processes, for example, is counted as a failure. The next version is prepared as usual."""
    monkeypatch.setattr(keeping, "_POLL_S", 0.01)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    shown, memory = CollectorRegistry(), MemoryBudget(MEMORY)
    with capture_logs() as logs:
        async with run_in_background(keep_prepared(settings, service, memory, Metrics(shown))):
            await wait_until_async(lambda: count_builds(shown, "failed") == 1)
            monkeypatch.undo()
            newer = open_url(settings, f"onnx://{find_model_folder(settings, '1.1')}")
            service.replace_backend(newer).result().close()
            await wait_until_async(lambda: serves_a_copy(service))
    (entry,) = [entry for entry in logs if entry["event"] == "model_not_prepared"]
    assert entry["reason"] == "the process that builds it cannot start: No such file or directory"


async def test_a_version_that_arrives_during_a_build_is_prepared(
    settings: Settings, service: PredictionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the version that was replaced is not used; the version in service gets its own."""
    loop, shown = asyncio.get_running_loop(), CollectorRegistry()
    opened: list[str] = []

    async def replace_backend(newer: Backend) -> None:
        service.replace_backend(newer).result().close()

    def open_after_replacing(settings: Settings, url: str) -> Backend:
        if not opened:
            newer = open_url(settings, f"onnx://{find_model_folder(settings, '1.1')}")
            asyncio.run_coroutine_threadsafe(replace_backend(newer), loop).result()
        opened.append(url)
        return open_url(settings, url)

    monkeypatch.setattr(keeping, "open_url", open_after_replacing)
    async with run_in_background(keep_prepared(settings, service, MemoryBudget(MEMORY), Metrics(shown))):
        await wait_until_async(lambda: serves_a_copy(service))
    assert service.model.version == "1.1"
    assert count_builds(shown) == 2


class CountingBudget(MemoryBudget):
    """Counts the reservations."""

    reservations = 0

    @asynccontextmanager
    async def reserve(self, amount: int, caller: str = "", deadline: float = math.inf) -> AsyncIterator[Reservation]:
        self.reservations += 1
        async with super().reserve(amount, caller, deadline) as reservation:
            yield reservation


async def test_each_attempt_to_get_memory_has_its_own_reservation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for memory does not count as holding it, which would prolong the Retry-After of other requests."""
    monkeypatch.setattr(building, "RETRY_S", 0)
    memory = CountingBudget(MEMORY, wait_s=0.01)

    async def wait_for_memory() -> None:
        async with building.reserve_when_free(memory, memory.largest):
            assert memory.reserved == memory.largest

    async with memory.reserve(0, "ana") as images:
        await images.resize(memory.largest, while_waiting=0)
        waiting = asyncio.create_task(wait_for_memory())
        await wait_until_async(lambda: memory.reservations > 3)
    await waiting
    assert memory.reserved == 0

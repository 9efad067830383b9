"""Preparing the model in service for the machine."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.services.background import run_in_background
from api.services.opening import open_model, open_url
from api.services.prepared_copies import building, keeping
from api.services.prepared_copies.keeping import keep_prepared
from api.services.registry import find_model_folder
from api.settings import Settings
from model.backends.base import Backend, Origin
from model.backends.prepared.copies import GRAPH
from model.backends.stub import StubBackend
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from model.serving.memory_budget import MemoryBudget, Reservation
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from monitoring.chains.signing import new_private_key
from monitoring.metrics import Metrics
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.canary.trials import start_trial
from tests.model.serving.gated import png
from tests.support.polling import wait_until_async

MEMORY = 1 << 30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A registry with version 1.0, in production, and 1.1 of a model, with different graphs; neither is prepared."""
    registry = FileRegistry(tmp_path / "registry")
    for version, size in (("1.0", 16), ("1.1", 32)):
        source = tmp_path / version
        source.mkdir()
        write_tiny_artefact(source, InputSpec(size, size))
        manifest = source / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": version}))
        registry.add(source)
    registry.move_aliases("tiny", {"production": "1.0"}, who="cli:olga", why="a test")
    model = {
        "registry": f"file://{tmp_path}/registry",
        "url": "registry://tiny@production",
        "prepared_folder": tmp_path / "prepared",
    }
    return Settings(model=model, ledger={"signing_key": new_private_key()})


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[PredictionService]:
    service = PredictionService(open_model(settings), workers=1, limits=QueueLimits(2, 2.0), on_stage=lambda *_: None)
    yield service
    service.close()
    service.backend.close()


def count_builds(shown: CollectorRegistry, outcome: str = "done") -> float | None:
    return shown.get_sample_value("atalaya_preparations_total", {"outcome": outcome})


def serves_a_copy(service: PredictionService) -> bool:
    weights = service.backend.weights
    return weights is not None and weights.origin is Origin.PREPARED


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

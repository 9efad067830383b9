"""Releasing memory while no predictions are requested."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.services.background import idle_memory, run_in_background
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from tests.model.serving.gated import FakeClock, GatedBackend, png, until


class ReleasingBackend(GatedBackend):
    """Counts how often its memory was released, and how often free memory was returned after that."""

    released = 0
    returned = 0

    def release_memory(self) -> None:
        self.released += 1


class ObservedService(PredictionService):
    """Counts how often it was checked for idleness."""

    checks = 0

    @property
    def idle_s(self) -> float:
        self.checks += 1
        return super().idle_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def service(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObservedService]:
    """A service that releases memory when idle, and is checked for idleness continuously."""
    monkeypatch.setattr(idle_memory, "_CHECK_S", 0)
    service = ObservedService(
        ReleasingBackend(), workers=1, limits=QueueLimits(2, 2.0), on_stage=lambda *_: None, clock=clock
    )

    def count_return() -> None:
        backend = get_backend(service)
        backend.returned = backend.released

    monkeypatch.setattr(idle_memory, "return_free_memory", count_return)
    async with run_in_background(idle_memory.release_idle_memory(service)):
        yield service
    service.close()


def get_backend(service: PredictionService) -> ReleasingBackend:
    assert isinstance(service.backend, ReleasingBackend)
    return service.backend


async def test_memory_is_released_once_while_idle(service: ObservedService, clock: FakeClock) -> None:
    """Memory is released once at the start and once after each idle period, not earlier."""
    backend = get_backend(service)
    await until(lambda: backend.returned == 1)
    backend.gate.set()
    await service.predict(png(1))
    clock.now += idle_memory.IDLE_S - 1
    await until_checked(service)
    assert backend.released == 1
    clock.now += 1
    await until(lambda: backend.returned == 2)
    clock.now += 1000
    await until_checked(service)
    assert backend.released == 2


async def test_memory_of_another_version_is_released(service: PredictionService) -> None:
    """A version that is put into service while no predictions are requested releases the memory of its warm-up."""
    await until(lambda: get_backend(service).released == 1)
    service.replace_backend(ReleasingBackend())
    await until(lambda: get_backend(service).released == 1)


async def until_checked(service: ObservedService) -> None:
    """Run the event loop until a check is complete that began after this call."""
    checks = service.checks
    await until(lambda: service.checks >= checks + 2)

"""Jobs that outlast the deadline of their caller, and jobs that do not end."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest

from model.errors import DeadlineExceeded, Overloaded, WorkerStuck
from model.serving.memory_budget import MemoryBudget
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, png, until

MEGABYTE = 1 << 20


async def test_the_wait_ends_at_the_deadline(make_service: MakeService) -> None:
    """The caller of a job that runs past its deadline gets DeadlineExceeded."""
    with pytest.raises(DeadlineExceeded):
        await make_service().predict(png(1), deadline=asyncio.get_running_loop().time() + 0.1)


async def test_a_job_outlasts_the_wait(backend: GatedBackend, make_service: MakeService) -> None:
    """After the deadline, the job's memory and its worker stay in use until its thread is done."""
    service, memory = make_service(workers=1, slots=0), MemoryBudget(64 * MEGABYTE)

    async def predict() -> None:
        async with memory.reserve(MEGABYTE, "ana") as reservation:
            await service.predict(png(1), reservation=reservation, caller="ana")

    predicting = asyncio.create_task(predict())
    await until(lambda: backend.in_progress == 1)
    service.expire_all()
    with pytest.raises(DeadlineExceeded):
        await predicting
    assert memory.reserved > 0
    assert service.queue.busy
    backend.gate.set()
    await until(lambda: memory.reserved == 0)
    assert not service.queue.busy


async def test_the_deadline_covers_the_admission(make_service: MakeService) -> None:
    """An admission that takes too long ends at the deadline, and nothing is queued."""

    async def wait(_: int) -> None:
        await asyncio.Event().wait()

    service = make_service()
    with pytest.raises(DeadlineExceeded):
        await service.predict(png(1), wait, deadline=asyncio.get_running_loop().time() + 0.05)
    assert (service.in_use, service.queue.busy) == (False, False)


async def test_a_timeout_of_the_admission_itself_is_not_a_deadline(make_service: MakeService) -> None:
    """A TimeoutError that the admission raises reaches the caller unchanged."""

    async def fail(_: int) -> None:
        raise TimeoutError("database")

    with pytest.raises(TimeoutError, match="database"):
        await make_service().predict(png(1), fail)


async def test_an_abandoned_job_does_not_count_for_its_caller(backend: GatedBackend, make_service: MakeService) -> None:
    """A caller whose only job is past its deadline but still running may preempt a caller with more jobs."""
    service = make_service(workers=1, slots=2)
    abandoned = asyncio.create_task(service.predict(png(1), caller="ana"))
    await until(lambda: backend.in_progress == 1)
    service.expire_all()
    with pytest.raises(DeadlineExceeded):
        await abandoned
    queued = [asyncio.create_task(service.predict(png(1), caller="ben")) for _ in range(2)]
    await until(lambda: service.queue.waiting == 2)
    preempting = asyncio.create_task(service.predict(png(1), caller="ana"))
    await until(queued[1].done)
    assert isinstance(queued[1].exception(), Overloaded)
    backend.gate.set()
    await asyncio.gather(queued[0], preempting)


async def test_a_job_that_does_not_end_is_reported(backend: GatedBackend, make_service: MakeService) -> None:
    """The stuck job's caller gets DeadlineExceeded, other callers get WorkerStuck, and its memory stays reserved."""
    service, memory = make_service(workers=1), MemoryBudget(64 * MEGABYTE)
    reported: list[tuple[str, str]] = []
    async with memory.reserve(MEGABYTE, "ana") as reservation:
        stuck = asyncio.create_task(service.predict(png(1), reservation=reservation, caller="ana"))
        await until(lambda: backend.in_progress == 1)  # before watching: decoding may take half a second too
        watching = asyncio.create_task(service.watch(0.5, lambda *job: reported.append(job)))
        queued = asyncio.create_task(service.predict(png(1), caller="ben"))
        results = await asyncio.gather(stuck, queued, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineExceeded, WorkerStuck]
    assert reported == [("infer", "ana")]
    with pytest.raises(WorkerStuck):
        service.check_threads()
    for call in (service.predict, service.measure):
        with pytest.raises(WorkerStuck):
            await call(png(1))
    assert memory.reserved > 0
    assert not service.close(limit_s=0.01)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_all_waits_can_be_ended(backend: GatedBackend, make_service: MakeService) -> None:
    """`expire_all` ends running and queued requests as if their deadlines had passed."""
    service = make_service(workers=1)
    tasks = [asyncio.create_task(service.predict(png(1), deadline=math.inf)) for _ in range(2)]
    await until(lambda: backend.in_progress == 1 and service.queue.waiting == 1)
    service.expire_all()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineExceeded] * 2
    assert (len(service.queue.running), service.queue.waiting) == (1, 0)
    backend.gate.set()


async def test_measuring_waits_in_the_queue(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """A measurement waits in the queue for a worker, but not beyond its deadline.

    The clock stands still, so that the deadline can be met when the measurement is queued.
    """
    service = make_service(workers=1, clock=clock)
    running = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    measuring = asyncio.create_task(service.measure(png(1), caller="ana"))
    await until(lambda: service.queue.waiting == 1)
    with pytest.raises(DeadlineExceeded):
        await service.measure(png(1), caller="ben", deadline=clock.now + 0.3)
    assert service.queue.waiting == 1
    backend.gate.set()
    assert (await measuring).pixels == 1200
    await running

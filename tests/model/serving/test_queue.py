"""Which requests wait, in which order they are served, and which are rejected or evicted."""

from __future__ import annotations

import asyncio

import pytest

from model.errors import Overloaded
from model.serving.prediction import Prediction
from model.serving.service import PredictionService
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, png, until

Task = asyncio.Task[Prediction]


@pytest.fixture
def shedding_service(make_service: MakeService, clock: FakeClock) -> PredictionService:
    """One worker and four slots; the limit of waits is never reached, and the fake clock ends the shedding period."""
    return make_service(workers=1, slots=4, seconds=3600, shedding_s=1, clock=clock)


async def start(service: PredictionService, count: int, *, waiting: int, caller: str = "") -> list[Task]:
    """Start `count` requests, and wait until `waiting` jobs are in the queue."""
    tasks = [asyncio.create_task(service.predict(png(1), caller=caller)) for _ in range(count)]
    await until(lambda: service.queue.waiting == waiting)
    return tasks


async def test_a_full_queue_rejects_requests(backend: GatedBackend, make_service: MakeService) -> None:
    """With one job running and two waiting, the fourth request is rejected at once; a freed slot can be used again."""
    service = make_service(workers=1, slots=2)
    tasks = await start(service, 3, waiting=2)
    with pytest.raises(Overloaded, match=r"The server is overloaded\. Try again later\.") as rejection:
        await service.predict(png(4))
    assert rejection.value.retry_after_s >= 1
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert (await service.predict(png(4))).image.width == 40


async def test_a_queue_without_slots_still_serves(backend: GatedBackend, make_service: MakeService) -> None:
    """With a limit of 0, no request waits, and free workers still take requests."""
    service = make_service(workers=1, slots=0)
    task = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(2))
    backend.gate.set()
    await task


async def test_the_estimated_wait_grows_with_the_queue(backend: GatedBackend, make_service: MakeService) -> None:
    """Before the first measurement a job is estimated at 0.05 s: forty of them take one worker 2 s."""
    service = make_service(workers=1, slots=39)
    tasks = await start(service, 40, waiting=39)
    with pytest.raises(Overloaded) as rejection:
        await service.predict(png(1))
    assert rejection.value.retry_after_s == 2
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_callers_are_served_in_rotation(backend: GatedBackend, make_service: MakeService) -> None:
    """A caller's single request is served after at most two of the ten that another caller sent before."""
    service = make_service(workers=1, slots=20)
    order: list[str] = []

    async def request(caller: str) -> None:
        await service.predict(png(1), caller=caller)
        order.append(caller)

    tasks = [asyncio.create_task(request("many")) for _ in range(10)]
    await until(lambda: service.queue.waiting == 9)
    tasks.append(asyncio.create_task(request("few")))
    await until(lambda: service.queue.waiting == 10)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert order.index("few") <= 2


async def test_a_request_preempts_the_last_job_of_the_caller_with_the_most(
    backend: GatedBackend, make_service: MakeService
) -> None:
    """In a full queue, another caller gets the slot of that job; new requests of the first caller are rejected."""
    service = make_service(workers=1, slots=4)
    many = await start(service, 5, waiting=4, caller="many")
    service.queue.check_capacity("few")
    few = asyncio.create_task(service.predict(png(1), caller="few"))
    await until(many[-1].done)
    assert isinstance(many[-1].exception(), Overloaded)
    with pytest.raises(Overloaded):
        service.queue.check_capacity("many")
    with pytest.raises(Overloaded):
        await service.predict(png(1), caller="many")
    backend.gate.set()
    await asyncio.gather(few, *many[:-1])


async def test_the_estimated_wait_is_bounded(backend: GatedBackend, make_service: MakeService) -> None:
    """A request is rejected despite free slots if its estimated wait, 2.5 jobs of 50 ms, exceeds the limit of 0.1 s."""
    service = make_service(workers=1, slots=100, seconds=0.1)
    tasks = await start(service, 3, waiting=2)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_while_shedding_one_job_waits_for_one_worker(
    backend: GatedBackend, shedding_service: PredictionService
) -> None:
    """After a rejection, one job may wait instead of four, so that accepted requests are served soon."""
    tasks = await start(shedding_service, 5, waiting=4)
    with pytest.raises(Overloaded):
        await shedding_service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    backend.gate.clear()
    tasks = await start(shedding_service, 2, waiting=1)
    with pytest.raises(Overloaded):
        await shedding_service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_shedding_evicts_jobs_that_waited_before(
    backend: GatedBackend, shedding_service: PredictionService
) -> None:
    """When rejections exceed half of the queued jobs, only the jobs that would still be accepted stay."""
    tasks = await start(shedding_service, 5, waiting=4)
    for waiting in (4, 4, 1):
        with pytest.raises(Overloaded):
            await shedding_service.predict(png(1))
        assert shedding_service.queue.waiting == waiting
    backend.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Prediction] * 2 + [Overloaded] * 3


async def test_under_overload_only_callers_without_jobs_wait(
    backend: GatedBackend, shedding_service: PredictionService
) -> None:
    """A caller with jobs gets no slot, only a free worker; other callers get the single slot, one at a time."""
    queue = shedding_service.queue
    tasks = await start(shedding_service, 5, waiting=4, caller="many")
    for _ in range(6):
        with pytest.raises(Overloaded):
            await shedding_service.predict(png(1), caller="many")
    assert queue.waiting == 1  # submitted before the first rejection
    few = asyncio.create_task(shedding_service.predict(png(1), caller="few"))
    await until(tasks[1].done)
    assert isinstance(tasks[1].exception(), Overloaded)
    for caller in ("many", "few", "third"):
        with pytest.raises(Overloaded):
            queue.check_capacity(caller)
    few.cancel()
    await until(lambda: queue.waiting == 0)
    with pytest.raises(Overloaded):
        queue.check_capacity("many")
    queue.check_capacity("third")
    backend.gate.set()
    await asyncio.gather(*tasks, few, return_exceptions=True)
    assert isinstance(await shedding_service.predict(png(1), caller="many"), Prediction)


async def test_an_unmeetable_deadline_does_not_indicate_overload(
    backend: GatedBackend, shedding_service: PredictionService, clock: FakeClock
) -> None:
    """A request that cannot be served by its deadline is rejected without starting a shedding period."""
    tasks = await start(shedding_service, 4, waiting=3)
    for _ in range(10):
        with pytest.raises(Overloaded):
            await shedding_service.predict(png(1), deadline=clock.now)
    tasks += await start(shedding_service, 1, waiting=4)
    with pytest.raises(Overloaded):
        await shedding_service.predict(png(1), caller="another", deadline=clock.now)
    assert shedding_service.queue.waiting == 4
    backend.gate.set()
    assert [type(result) for result in await asyncio.gather(*tasks)] == [Prediction] * 5


async def test_after_a_burst_the_queue_returns_to_normal(
    backend: GatedBackend, shedding_service: PredictionService, clock: FakeClock
) -> None:
    """When the shedding period ends with fewer rejections than predictions, all slots can be used again."""
    for _ in range(2):
        tasks = await start(shedding_service, 5, waiting=4)
        with pytest.raises(Overloaded):
            await shedding_service.predict(png(1))
        backend.gate.set()
        await asyncio.gather(*tasks)
        backend.gate.clear()
        clock.now += 1.1

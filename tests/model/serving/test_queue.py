"""Who may wait, who is next, and who is turned away."""

from __future__ import annotations

import asyncio
import time

import pytest

from model.errors import Overloaded
from model.serving.overload_policy import QueueLimits
from model.serving.prediction import Prediction
from model.serving.service import PredictionService
from tests.model.serving.gated import GatedBackend, Make, png, until


async def test_a_full_queue_turns_callers_away(backend: GatedBackend, make_service: Make) -> None:
    """With one running and two waiting, the fourth is refused at once, and a place that is free again is given."""
    service = make_service(workers=1, queue_limit=2)
    tasks = [asyncio.create_task(service.predict(png(value))) for value in range(3)]
    await until(lambda: service.queue.waiting == 2)
    with pytest.raises(Overloaded) as refusal:
        await service.predict(png(4))
    assert refusal.value.retry_after_s >= 1
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert (await service.predict(png(4))).image.width == 40


async def test_a_queue_of_no_places_still_serves(backend: GatedBackend, make_service: Make) -> None:
    """A limit of 0 means that nobody waits, not that nobody is served."""
    service = make_service(workers=1, queue_limit=0)
    task = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.inside == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(2))
    backend.gate.set()
    await task


async def test_the_estimated_wait_grows_with_the_queue(backend: GatedBackend, make_service: Make) -> None:
    """Before any job was timed one is taken to need 0.05 s: forty of them on one worker are 2 s."""
    service = make_service(workers=1, queue_limit=39)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(40)]
    await until(lambda: service.queue.waiting == 39)
    with pytest.raises(Overloaded) as refusal:
        await service.predict(png(1))
    assert refusal.value.retry_after_s == 2
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_who_sends_much_waits_behind_its_own(backend: GatedBackend, make_service: Make) -> None:
    """Of a crowd of one caller's and one request of another's, the latter is next but one."""
    service = make_service(workers=1, queue_limit=20)
    order: list[str] = []

    async def ask(caller: str) -> None:
        await service.predict(png(1), caller=caller)
        order.append(caller)

    tasks = [asyncio.create_task(ask("many")) for _ in range(10)]
    await until(lambda: service.queue.waiting == 9)
    tasks.append(asyncio.create_task(ask("few")))
    await until(lambda: service.queue.waiting == 10)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert order.index("few") <= 2


async def test_in_a_full_queue_the_longest_line_makes_room(backend: GatedBackend, make_service: Make) -> None:
    """A newcomer takes the place of the last one of whoever sends most; who sends most is turned away itself."""
    service = make_service(workers=1, queue_limit=4)
    many = [asyncio.create_task(service.predict(png(1), caller="many")) for _ in range(5)]
    await until(lambda: service.queue.waiting == 4)
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


async def test_nobody_waits_for_longer_than_the_limit(backend: GatedBackend) -> None:
    """The queue is bounded by the estimated wait, too: at 50 ms a job, two and a half are too much for 0.1 s."""
    limits = QueueLimits(slots=100, seconds=0.1)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(3)]
    await until(lambda: service.queue.waiting == 2)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    service.close()


async def test_under_overload_the_wait_is_short(backend: GatedBackend) -> None:
    """After somebody was turned away one more may wait, not four: who is let in is answered soon."""
    limits = QueueLimits(slots=4, seconds=60, shedding_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(5)]
    await until(lambda: service.queue.waiting == 4)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    backend.gate.clear()
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(2)]
    await until(lambda: service.queue.waiting == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    service.close()


async def test_a_crowd_ends_the_wait_of_those_who_came_before_it(backend: GatedBackend) -> None:
    """When more than half as many were turned away as wait, only those stay who would still be let in."""
    limits = QueueLimits(slots=4, seconds=60, shedding_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(5)]
    await until(lambda: service.queue.waiting == 4)
    for waiting in (4, 4, 1):
        with pytest.raises(Overloaded):
            await service.predict(png(1))
        assert service.queue.waiting == waiting
    backend.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Prediction] * 2 + [Overloaded] * 3
    service.close()


async def test_in_a_flood_only_who_has_nothing_here_waits(backend: GatedBackend) -> None:
    """A caller who floods the service gets a worker that is free and no place: that is for others, one at a time."""
    limits = QueueLimits(slots=4, seconds=60, shedding_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1), caller="many")) for _ in range(5)]
    await until(lambda: service.queue.waiting == 4)
    for _ in range(6):
        with pytest.raises(Overloaded):
            await service.predict(png(1), caller="many")
    assert service.queue.waiting == 1  # of those who came before
    few = asyncio.create_task(service.predict(png(1), caller="few"))
    await until(tasks[1].done)
    assert isinstance(tasks[1].exception(), Overloaded)
    for caller in ("many", "few", "third"):
        with pytest.raises(Overloaded):
            service.queue.check_capacity(caller)
    few.cancel()
    await until(lambda: service.queue.waiting == 0)
    with pytest.raises(Overloaded):
        service.queue.check_capacity("many")
    service.queue.check_capacity("third")
    backend.gate.set()
    await asyncio.gather(*tasks, few, return_exceptions=True)
    assert isinstance(await service.predict(png(1), caller="many"), Prediction)
    service.close()


async def test_the_haste_of_one_is_no_crowd(backend: GatedBackend) -> None:
    """Who asks for an answer sooner than it can be had is turned away alone: nobody else notices."""
    limits = QueueLimits(slots=4, seconds=60, shedding_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(4)]
    await until(lambda: service.queue.waiting == 3)
    for _ in range(10):
        with pytest.raises(Overloaded):
            await service.predict(png(1), deadline=time.monotonic())
    tasks.append(asyncio.create_task(service.predict(png(1))))
    await until(lambda: service.queue.waiting == 4)
    with pytest.raises(Overloaded):
        await service.predict(png(1), caller="another", deadline=time.monotonic())
    assert service.queue.waiting == 4
    backend.gate.set()
    assert [type(answer) for answer in await asyncio.gather(*tasks)] == [Prediction] * 5
    service.close()


async def test_a_burst_that_is_over_is_forgotten(backend: GatedBackend) -> None:
    """Once the strict time is over and fewer were turned away than answered, as many may wait as before."""
    limits = QueueLimits(slots=4, seconds=60, shedding_s=0.05)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    for _ in range(2):
        tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(5)]
        await until(lambda: service.queue.waiting == 4)
        with pytest.raises(Overloaded):
            await service.predict(png(1))
        backend.gate.set()
        await asyncio.gather(*tasks)
        backend.gate.clear()
        await asyncio.sleep(0.06)
    service.close()

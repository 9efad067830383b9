"""Reserving, resizing, waiting for and freeing the memory of images in progress."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any

import pytest

from model.errors import ImageTooLargeHere, MemoryFull
from model.serving.memory_budget import MemoryBudget
from model.serving.memory_usage import MemoryUsage
from tests.model.serving.budget_callers import Callers, run_tasks
from tests.model.serving.gated import until
from tests.support.polling import PATIENCE_S


def test_the_largest_amount_leaves_an_eighth() -> None:
    """One request may reserve seven eighths of the budget; the rest is for small requests."""
    assert MemoryBudget(800).largest == 700


async def test_each_change_is_reported_and_everything_is_freed() -> None:
    """`on_change` gets each new sum, and all bytes are freed when the request ends, even with an error."""
    reported: list[int] = []
    budget = MemoryBudget(800, on_change=reported.append)

    async def fail() -> None:
        async with budget.reserve(100) as reservation:
            await reservation.resize(300, while_waiting=30)
            raise RuntimeError("the work")

    with pytest.raises(RuntimeError, match="the work"):
        await fail()
    assert reported == [100, 300, 0]


async def test_a_request_that_can_never_fit_is_rejected_at_once() -> None:
    """A request above the largest amount raises ImageTooLargeHere instead of waiting."""
    budget = MemoryBudget(800, wait_s=PATIENCE_S)
    with pytest.raises(ImageTooLargeHere, match="Scale it down"):
        async with budget.reserve(701):
            pytest.fail("reserved")
    async with budget.reserve(100) as reservation:
        with pytest.raises(ImageTooLargeHere):
            await reservation.resize(701, while_waiting=30)
    assert budget.reserved == 0


async def test_a_request_waits_for_memory() -> None:
    """A request waits until another one frees enough bytes."""
    callers = Callers(budget := MemoryBudget(800, wait_s=PATIENCE_S))
    first = await callers.start(300)
    await first.resize(500, while_waiting=30)
    second = callers.start(300)
    await run_tasks()
    assert not second.done()
    await callers.finish(first)
    assert (await second).amount == 300
    await callers.finish_all()
    assert budget.reserved == 0


async def test_the_wait_for_memory_is_limited() -> None:
    """After `wait_s` seconds, MemoryFull is raised with a retry delay, and the request has reserved nothing."""
    budget = MemoryBudget(800, wait_s=0.01)
    async with budget.reserve(100) as reservation:
        await reservation.resize(600, while_waiting=30)
        with pytest.raises(MemoryFull) as rejection:
            async with budget.reserve(200):
                pytest.fail("reserved")
        assert rejection.value.retry_after_s >= 1
        assert budget.reserved == 600
    async with budget.reserve(200):
        assert budget.reserved == 200


async def test_no_request_waits_for_memory_past_its_deadline() -> None:
    """A deadline ends the wait early, both before reading and before decoding."""
    budget = MemoryBudget(1000, wait_s=2 * PATIENCE_S)
    async with budget.reserve(400, "ana"), asyncio.timeout(PATIENCE_S):
        with pytest.raises(MemoryFull):
            async with budget.reserve(500, deadline=time.monotonic() + 0.05):
                pytest.fail("reserved")
        async with budget.reserve(100, deadline=time.monotonic() + 0.05) as reservation:
            with pytest.raises(MemoryFull):
                await reservation.resize(800, while_waiting=100)
    assert budget.reserved == 0


async def test_a_request_that_waits_for_decoding_holds_only_its_body() -> None:
    """The bytes reserved for reading beyond the body are free while the image waits to be decoded."""
    callers = Callers(budget := MemoryBudget(800, wait_s=PATIENCE_S))
    first, second = await callers.start(45), await callers.start(45)
    await first.resize(600, while_waiting=15)
    growing = asyncio.create_task(second.resize(600, while_waiting=15))
    await run_tasks()
    assert budget.reserved == 615
    await callers.finish(first)
    await growing
    assert budget.reserved == 600
    await callers.finish_all()


async def test_a_request_that_shrinks_does_not_wait() -> None:
    """A request that needs less than it holds proceeds at once, even while a large one waits."""
    budget = MemoryBudget(1000, wait_s=PATIENCE_S)
    async with budget.reserve(400, "ana") as large, budget.reserve(100, "ben") as other:
        growing = asyncio.create_task(large.resize(850, while_waiting=400))
        await run_tasks()
        await other.resize(60, while_waiting=50)
        assert (other.amount, growing.done()) == (60, False)
        growing.cancel()
        await asyncio.wait([growing])


async def test_a_request_cancelled_while_waiting_reserves_nothing() -> None:
    """Cancelled waiters reserve nothing, not even when memory becomes free."""
    callers = Callers(budget := MemoryBudget(800, wait_s=PATIENCE_S))
    large = await callers.start(600)
    entered = 0

    async def request() -> None:
        nonlocal entered
        async with budget.reserve(300):
            entered += 1

    waiting = [asyncio.create_task(request()) for _ in range(3)]
    await run_tasks()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await callers.finish(large)
    assert (budget.reserved, entered) == (0, 0)
    await callers.finish_all()


async def test_the_thread_of_a_cancelled_request_keeps_its_bytes() -> None:
    """The bytes of an image in a worker thread are freed when the thread has finished with it, not before."""
    budget = MemoryBudget(800)
    thread: Future[None] = Future()
    async with budget.reserve(100) as reservation:
        await reservation.resize(300, while_waiting=30)
        reservation.hold_until_done(thread)
    assert budget.reserved == 300
    await asyncio.to_thread(thread.set_result, None)
    await until(lambda: budget.reserved == 0)


@pytest.mark.parametrize("seed", range(5))
async def test_the_total_is_never_exceeded(seed: int) -> None:
    """However requests arrive, wait, are cancelled and end, at most the total is reserved, and finally nothing."""
    draw = random.Random(seed)  # noqa: S311
    peak = served = 0

    def record(reserved: int) -> None:
        nonlocal peak
        peak = max(peak, reserved)

    budget = MemoryBudget(1_000, wait_s=PATIENCE_S, on_change=record)

    async def request(body: int, pixels: int, turns: int) -> None:
        nonlocal served
        try:
            async with budget.reserve(body * 3) as reservation:
                await reservation.resize(body + pixels, while_waiting=body)
                for _ in range(turns):
                    await asyncio.sleep(0)
                served += 1
        except (MemoryFull, ImageTooLargeHere):
            return

    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for _ in range(400):
            work = request(draw.randint(1, 100), draw.choice([5, 50, 400, 800]), draw.randint(0, 20))
            task = tasks.create_task(work)
            if draw.random() < 0.1:
                asyncio.get_running_loop().call_soon(task.cancel)
    assert peak <= 1_000
    assert budget.reserved == 0
    assert served > 40


async def test_the_work_grows_with_the_number_of_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many waiting requests cause less than eight times as many checks of what fits."""
    checks, fits = 0, MemoryUsage.fits

    def count(*arguments: Any, **keywords: Any) -> bool:
        nonlocal checks
        checks += 1
        return fits(*arguments, **keywords)

    async def count_checks(waiters: int) -> int:
        nonlocal checks
        checks, budget = 0, MemoryBudget(1_000, wait_s=0.2)
        async with AsyncExitStack() as stack:
            while budget.reserved < 240:  # one caller's small bodies hold at most a quarter while they are read
                await stack.enter_async_context(budget.reserve(30))
            requests = (stack.enter_async_context(budget.reserve(30)) for _ in range(waiters))
            results = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(result, MemoryFull) for result in results)
        return checks

    monkeypatch.setattr(MemoryUsage, "fits", count)
    assert await count_checks(400) < 8 * await count_checks(100)

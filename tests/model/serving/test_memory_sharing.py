"""How small and large requests, and different callers, share the memory of images in progress."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from model.errors import MemoryFull
from model.serving.memory_budget import MemoryBudget, Reservation
from tests.model.serving.budget_callers import Callers, run_tasks
from tests.support.polling import PATIENCE_S


async def test_small_requests_do_not_wait_behind_large_ones() -> None:
    """Large requests together leave an eighth to small ones, which do not wait behind large ones."""
    callers = Callers(MemoryBudget(800, wait_s=PATIENCE_S))
    large = await callers.start(200)
    await large.resize(700, while_waiting=50)
    waiting = callers.start(300)
    small = [await callers.start(25) for _ in range(4)]
    assert not waiting.done()
    await callers.finish(small[0])
    await small[1].resize(20, while_waiting=5)
    await callers.finish(large)
    assert (await waiting).amount == 300
    await callers.finish_all()


async def test_small_requests_of_one_caller_do_not_starve_a_large_one() -> None:
    """While a large request waits, small requests of one caller are limited to an eighth; other callers may proceed."""
    budget = MemoryBudget(3200, wait_s=PATIENCE_S)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        small = [await enter(budget.reserve(100, "ana")) for _ in range(6)]
        for reservation in small:
            await reservation.resize(90, while_waiting=50)
        large = await enter(budget.reserve(300, "ben"))
        growing = asyncio.create_task(large.resize(2800, while_waiting=150))
        await run_tasks()
        assert not growing.done()
        one_more = asyncio.create_task(enter(budget.reserve(40, "ana")))
        await run_tasks()
        assert not one_more.done()
        assert (await enter(budget.reserve(60, "cleo"))).amount == 60
        for reservation in small[:3]:
            await reservation.resize(10, while_waiting=10)
        await growing
        await one_more
    assert budget.reserved == 0


async def test_small_requests_proceed_when_the_large_one_does() -> None:
    """Granting a large request lifts the limit on the small ones that waited because of it."""
    budget = MemoryBudget(3200, wait_s=PATIENCE_S)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = await enter(budget.reserve(300, "ben"))
        await first.resize(2000, while_waiting=150)
        small = [await enter(budget.reserve(100, "ana")) for _ in range(4)]
        for reservation in small:
            await reservation.resize(100, while_waiting=50)
        large = await enter(budget.reserve(300, "cleo"))
        growing = asyncio.create_task(large.resize(1500, while_waiting=150))
        one_more = asyncio.create_task(enter(budget.reserve(90, "ana")))
        await run_tasks()
        assert [growing.done(), one_more.done()] == [False, False]
        await first.resize(10, while_waiting=10)
        await asyncio.gather(growing, one_more)
    assert budget.reserved == 0


async def test_large_requests_are_served_in_the_order_of_arrival() -> None:
    """A stream of smaller requests cannot starve a large one: they wait behind it."""
    callers = Callers(MemoryBudget(800, wait_s=PATIENCE_S))
    first, second, third = [await callers.start(90) for _ in range(3)]
    await first.resize(500, while_waiting=30)
    turns: list[str] = []

    async def decode(name: str, reservation: Reservation, amount: int) -> None:
        await reservation.resize(amount, while_waiting=30)
        turns.append(name)

    first_waiter = asyncio.create_task(decode("first_waiter", second, 600))
    await run_tasks()
    second_waiter = asyncio.create_task(decode("second_waiter", third, 110))
    await run_tasks()
    assert turns == []
    await callers.finish(first)
    assert turns == ["first_waiter"]
    await callers.finish(second)
    assert turns == ["first_waiter", "second_waiter"]
    await asyncio.gather(first_waiter, second_waiter)
    await callers.finish_all()


async def test_bodies_leave_memory_for_decoding() -> None:
    """Large bodies fill at most half of the total while they are read; a single one may be larger."""
    callers = Callers(MemoryBudget(800, wait_s=PATIENCE_S))
    read = await callers.start(250)
    other = callers.start(250)
    await run_tasks()
    assert not other.done()
    await read.resize(300, while_waiting=80)
    assert (await other).amount == 250
    await callers.finish_all()
    assert (await callers.start(600)).amount == 600
    await callers.finish_all()


async def test_requests_that_wait_do_not_block_each_other() -> None:
    """When two bodies leave too little memory to decode either image, the later request is evicted."""
    callers = Callers(budget := MemoryBudget(800, wait_s=PATIENCE_S))
    first, second = await callers.start(150), await callers.start(150)
    growing = [asyncio.create_task(reservation.resize(680, while_waiting=140)) for reservation in (first, second)]
    with pytest.raises(MemoryFull):
        await growing[1]
    await callers.finish(second)
    await growing[0]
    assert budget.reserved == 680
    await callers.finish_all()


async def test_slow_small_bodies_of_one_caller_fill_a_quarter() -> None:
    """Small bodies being read take at most a quarter per caller and three quarters in all; others can be decoded."""
    budget = MemoryBudget(3200, wait_s=0.02)
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(budget.reserve(100, "ana"))
        with pytest.raises(MemoryFull):
            await stack.enter_async_context(budget.reserve(100, "ana"))
        reservation = await stack.enter_async_context(budget.reserve(100, "ben"))
        await reservation.resize(2000, while_waiting=100)
        assert (reservation.amount, budget.reserved) == (2000, 2800)
    assert budget.reserved == 0
    async with AsyncExitStack() as stack:
        for caller in "abcdef":
            for _ in range(4):
                await stack.enter_async_context(budget.reserve(100, caller))
        with pytest.raises(MemoryFull):
            await stack.enter_async_context(budget.reserve(100, "g"))
    assert budget.reserved == 0


async def test_large_bodies_of_one_caller_leave_memory_for_others() -> None:
    """A caller's first large body may exceed a quarter; the same caller's next one is then rejected."""
    budget = MemoryBudget(3200, wait_s=0.02)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(budget.reserve(1300, "ana"))
        with pytest.raises(MemoryFull):
            await stack.enter_async_context(budget.reserve(200, "ana"))
        reservation = await stack.enter_async_context(budget.reserve(200, "ben"))
        await reservation.resize(1200, while_waiting=150)
        for _ in range(2):
            await stack.enter_async_context(budget.reserve(110, "ben"))
    assert budget.reserved == 0

"""The memory that images in flight may take together."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack

import pytest

from model.errors import ImageTooLargeHere, MemoryFull
from model.serving.memory_budget import MemoryBudget, Reservation

Task = asyncio.Task[Reservation]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (it changes in other tasks)
            await asyncio.sleep(0)


async def charge() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Callers:
    """Requests that come, are read, are decoded and leave when the test says so."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._leave: dict[Reservation, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def comes(self, amount: int) -> asyncio.Future[Reservation]:
        entered: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()

        async def stay() -> None:
            try:
                async with self._budget.reserve(amount, str(len(self._tasks))) as reservation:
                    self._leave[reservation] = asyncio.Event()
                    entered.set_result(reservation)
                    await self._leave[reservation].wait()
            except MemoryFull as error:
                entered.set_exception(error)

        self._tasks.append(asyncio.create_task(stay()))
        return entered

    async def leaves(self, reservation: Reservation) -> None:
        self._leave[reservation].set()
        await charge()

    async def all_leave(self) -> None:
        for left in self._leave.values():
            left.set()
        await asyncio.gather(*self._tasks)


def test_the_largest_amount_leaves_an_eighth() -> None:
    """One request may have seven eighths: the rest is for small ones."""
    assert MemoryBudget(800).largest == 700


async def test_what_is_reserved_is_told_and_given_back() -> None:
    """Each change is heard of; nothing is left when the request has ended, also in an error."""
    heard: list[int] = []
    budget = MemoryBudget(800, on_change=heard.append)

    async def fail() -> None:
        async with budget.reserve(100) as reservation:
            await reservation.resize(300, while_waiting=30)
            raise RuntimeError("the work")

    with pytest.raises(RuntimeError, match="the work"):
        await fail()
    assert heard == [100, 300, 0]


async def test_what_never_fits_is_refused_at_once() -> None:
    """A request beyond the largest amount does not wait: another machine may take it, this one never will."""
    budget = MemoryBudget(800, wait_s=10)
    with pytest.raises(ImageTooLargeHere, match="Scale it down"):
        async with budget.reserve(701):
            pytest.fail("let in")
    async with budget.reserve(100) as reservation:
        with pytest.raises(ImageTooLargeHere):
            await reservation.resize(701, while_waiting=30)
    assert budget.reserved == 0


async def test_who_finds_no_room_waits_for_it() -> None:
    """The room of one that leaves goes to the one that waits."""
    callers = Callers(budget := MemoryBudget(800, wait_s=10))
    first = await callers.comes(300)
    await first.resize(500, while_waiting=30)
    second = callers.comes(300)
    await charge()
    assert not second.done()
    await callers.leaves(first)
    assert (await second).amount == 300
    await callers.all_leave()
    assert budget.reserved == 0


async def test_who_waits_too_long_is_sent_away() -> None:
    """After `wait_s` seconds it is MemoryFull, which says when to come again; nothing stays behind."""
    budget = MemoryBudget(800, wait_s=0.01)
    async with budget.reserve(100) as reservation:
        await reservation.resize(600, while_waiting=30)
        with pytest.raises(MemoryFull) as refusal:
            async with budget.reserve(200):
                pytest.fail("let in")
        assert refusal.value.retry_after_s >= 1
        assert budget.reserved == 600
    async with budget.reserve(200):
        assert budget.reserved == 200


async def test_small_ones_find_room_beside_large_ones() -> None:
    """What large requests may have together leaves an eighth; who is small is not kept in their line either."""
    callers = Callers(MemoryBudget(800, wait_s=10))
    large = await callers.comes(200)
    await large.resize(700, while_waiting=50)
    waiting = callers.comes(300)
    small = [await callers.comes(25) for _ in range(4)]
    assert not waiting.done()
    await callers.leaves(small[0])
    await small[1].resize(20, while_waiting=5)
    await callers.leaves(large)
    assert (await waiting).amount == 300
    await callers.all_leave()


async def test_small_ones_do_not_keep_a_large_one_out() -> None:
    """While it waits one caller's small ones have an eighth, which is beside what it needs; others' have theirs."""
    budget = MemoryBudget(3200, wait_s=10)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        small = [await enter(budget.reserve(100, "ana")) for _ in range(6)]
        for reservation in small:
            await reservation.resize(90, while_waiting=50)
        large = await enter(budget.reserve(300, "ben"))
        growing = asyncio.create_task(large.resize(2800, while_waiting=150))
        await charge()
        assert not growing.done()
        one_more = asyncio.create_task(enter(budget.reserve(40, "ana")))
        await charge()
        assert not one_more.done()
        assert (await enter(budget.reserve(60, "cleo"))).amount == 60
        for reservation in small[:3]:
            await reservation.resize(10, while_waiting=10)
        await growing
        await one_more
    assert budget.reserved == 0


async def test_who_waited_behind_a_large_one_goes_with_it() -> None:
    """When a large one is let in, small ones that it kept out are looked at once more."""
    budget = MemoryBudget(3200, wait_s=10)
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
        await charge()
        assert [growing.done(), one_more.done()] == [False, False]
        await first.resize(10, while_waiting=10)
        await asyncio.wait_for(asyncio.gather(growing, one_more), 5)
    assert budget.reserved == 0


async def test_large_ones_are_served_in_the_order_of_coming() -> None:
    """A stream of lesser ones does not keep a large one out for ever: they wait behind it."""
    callers = Callers(MemoryBudget(800, wait_s=10))
    first, second, third = [await callers.comes(90) for _ in range(3)]
    await first.resize(500, while_waiting=30)
    turns: list[str] = []

    async def decode(name: str, reservation: Reservation, amount: int) -> None:
        await reservation.resize(amount, while_waiting=30)
        turns.append(name)

    larger = asyncio.create_task(decode("larger", second, 600))
    await charge()
    lesser = asyncio.create_task(decode("lesser", third, 110))
    await charge()
    assert turns == []
    await callers.leaves(first)
    assert turns == ["larger"]
    await callers.leaves(second)
    assert turns == ["larger", "lesser"]
    await asyncio.gather(larger, lesser)
    await callers.all_leave()


async def test_bodies_that_are_read_leave_room_for_decoding() -> None:
    """Who is being read fills half at most, so that who was read can be decoded; one alone may be larger."""
    callers = Callers(MemoryBudget(800, wait_s=10))
    read = await callers.comes(250)
    other = callers.comes(250)
    await charge()
    assert not other.done()
    await read.resize(300, while_waiting=80)
    assert (await other).amount == 250
    await callers.all_leave()
    assert (await callers.comes(600)).amount == 600
    await callers.all_leave()


async def test_who_waits_for_decoding_holds_no_more_than_its_body() -> None:
    """What reading took besides the body is free while its image waits for room."""
    callers = Callers(budget := MemoryBudget(800, wait_s=10))
    first, second = await callers.comes(45), await callers.comes(45)
    await first.resize(600, while_waiting=15)
    growing = asyncio.create_task(second.resize(600, while_waiting=15))
    await charge()
    assert budget.reserved == 615
    await callers.leaves(first)
    await growing
    assert budget.reserved == 600
    await callers.all_leave()


async def test_those_who_only_wait_do_not_keep_each_other_out() -> None:
    """Two whose bodies leave no room for the pixels of either: the later one is sent away, the first is decoded."""
    callers = Callers(budget := MemoryBudget(800, wait_s=10))
    first, second = await callers.comes(150), await callers.comes(150)
    growing = [asyncio.create_task(reservation.resize(680, while_waiting=140)) for reservation in (first, second)]
    with pytest.raises(MemoryFull):
        await growing[1]
    await callers.leaves(second)
    await growing[0]
    assert budget.reserved == 680
    await callers.all_leave()


async def test_who_leaves_while_it_waits_takes_no_room() -> None:
    """A caller that gives up in the line is forgotten, and so is what it held."""
    callers = Callers(budget := MemoryBudget(800, wait_s=10))
    large = await callers.comes(600)
    entered = 0

    async def come() -> None:
        nonlocal entered
        async with budget.reserve(300):
            entered += 1

    waiting = [asyncio.create_task(come()) for _ in range(3)]
    await charge()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await callers.leaves(large)
    assert (budget.reserved, entered) == (0, 0)
    await callers.all_leave()


async def test_the_thread_of_an_abandoned_request_keeps_its_bytes() -> None:
    """Who leaves while its image is decoded gives the room back when the thread has ended, not before."""
    budget = MemoryBudget(800)
    thread: Future[None] = Future()
    async with budget.reserve(100) as reservation:
        await reservation.resize(300, while_waiting=30)
        reservation.hold_until_done(thread)
    assert budget.reserved == 300
    await asyncio.to_thread(thread.set_result, None)
    await until(lambda: budget.reserved == 0)


@pytest.mark.parametrize("seed", range(5))
async def test_a_crowd_never_takes_more_than_there_is(seed: int) -> None:
    """Whatever comes, waits, gives up and leaves: never more than the total, and nothing in the end."""
    draw = random.Random(seed)  # noqa: S311
    most = served = 0

    def hear(reserved: int) -> None:
        nonlocal most
        most = max(most, reserved)

    budget = MemoryBudget(1_000, wait_s=20, on_change=hear)

    async def come(body: int, pixels: int, breaths: int) -> None:
        nonlocal served
        try:
            async with budget.reserve(body * 3) as reservation:
                await reservation.resize(body + pixels, while_waiting=body)
                for _ in range(breaths):
                    await asyncio.sleep(0)
                served += 1
        except (MemoryFull, ImageTooLargeHere):
            return

    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for _ in range(400):
            coming = come(draw.randint(1, 100), draw.choice([5, 50, 400, 800]), draw.randint(0, 20))
            task = group.create_task(coming)
            if draw.random() < 0.1:
                asyncio.get_running_loop().call_soon(task.cancel)
    assert most <= 1_000
    assert budget.reserved == 0
    assert served > 40


async def test_who_needs_less_than_it_holds_waits_for_nobody() -> None:
    """A request that turns out to be smaller goes on at once, also while a large one waits for room."""
    budget = MemoryBudget(1000, wait_s=0.05)
    async with budget.reserve(400, "ana") as large, budget.reserve(100, "ben") as other:
        growing = asyncio.create_task(large.resize(850, while_waiting=400))
        await charge()
        await other.resize(60, while_waiting=50)
        assert (other.amount, growing.done()) == (60, False)
        with pytest.raises(MemoryFull):
            await growing


async def test_slow_small_bodies_of_one_caller_fill_a_quarter() -> None:
    """However many small bodies one caller sends slowly, others' images are read and decoded meanwhile."""
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


async def test_large_bodies_of_one_caller_leave_room_for_others() -> None:
    """One large body may be read in any case, more of the same caller's fill a quarter: another's finds room."""
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


async def test_nobody_waits_for_memory_past_a_deadline() -> None:
    """Whoever has less time than the usual wait hears when it is over, before reading and before decoding."""
    budget = MemoryBudget(1000, wait_s=30)
    async with budget.reserve(400, "ana"), asyncio.timeout(10):
        with pytest.raises(MemoryFull):
            async with budget.reserve(500, deadline=time.monotonic() + 0.05):
                """There is no room for both."""
        async with budget.reserve(100, deadline=time.monotonic() + 0.05) as reservation:
            with pytest.raises(MemoryFull):
                await reservation.resize(800, while_waiting=100)
    assert budget.reserved == 0

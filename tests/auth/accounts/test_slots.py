"""Slots, which go first to the callers with the least work in progress."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from auth.accounts.slots import FairSlots
from auth.errors import HashingBusy


class Workers:
    """Pieces of work that hold a slot until `finish` is called; `started` lists their owners in order."""

    def __init__(self, slots: FairSlots) -> None:
        self.started: list[str] = []
        self.slots = slots
        self.ends: list[asyncio.Event] = []

    async def work(self, *owner: str) -> None:
        async with self.slots.acquire(*owner):
            self.started.append("/".join(owner))
            self.ends.append(asyncio.Event())
            await self.ends[-1].wait()

    async def begin(self, owners: Sequence[str]) -> list[asyncio.Task[None]]:
        """Start one piece of work for each owner, a path such as "network/account"."""
        tasks = [asyncio.create_task(self.work(*owner.split("/"))) for owner in owners]
        await run_pending_tasks()
        return tasks

    async def finish(self, number: int) -> None:
        """End the work that started as number `number`."""
        self.ends[number].set()
        await run_pending_tasks()


async def run_pending_tasks() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def count_rejected(tasks: Sequence[asyncio.Task[None]]) -> int:
    return sum(task.done() and isinstance(task.exception(), HashingBusy) for task in tasks)


async def test_a_free_slot_goes_to_who_has_the_least_work() -> None:
    """A free slot goes to the waiting caller whose network, and then whose account, has the least work in progress."""
    workers = Workers(FairSlots(2, 16))
    tasks = await workers.begin(["a/eve", "a/eve", "a/eve", "a/ana", "a/eve", "b/bob"])
    assert workers.started == ["a/eve", "a/eve"]
    await workers.finish(0)
    assert workers.started[2:] == ["b/bob"]
    await workers.finish(2)
    assert workers.started[3:] == ["a/ana"]
    await workers.finish(3)
    assert workers.started[4:] == ["a/eve"]
    await cancel(tasks)


async def test_whoever_waits_most_is_rejected_first() -> None:
    """When the queue is full, the newest waiting caller of the busiest account in the busiest network is rejected."""
    workers = Workers(FairSlots(1, 4))
    many = await workers.begin(["a/eve"] * 5)
    assert count_rejected(many) == 0
    more = await workers.begin(["a/eve", "a/mallory"])
    assert count_rejected(more) == 1
    others = await workers.begin(["b/bob", "c/ana"])
    assert (count_rejected(many), count_rejected(more), count_rejected(others)) == (3, 1, 0)
    for number in range(4):
        await workers.finish(number)
    assert workers.started[1:] == ["a/eve", "a/mallory", "b/bob", "c/ana"]
    await cancel([*many, *more, *others])


async def test_an_account_can_use_every_slot_while_nobody_else_wants_one() -> None:
    """No slot is reserved: a single account can use them all, and its calls beyond the queue are rejected."""
    workers = Workers(FairSlots(3, 2))
    tasks = await workers.begin(["a/ana"] * 6)
    assert (len(workers.started), count_rejected(tasks)) == (3, 1)
    await cancel(tasks)


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_cancelled_caller_frees_its_slot(waiting: bool) -> None:
    """A caller that is cancelled while it waits, while it works or when it is given a slot leaves no slot in use."""
    workers = Workers(FairSlots(1, 4))
    first, second, third = await workers.begin(["a", "b", "c"])
    if waiting:
        second.cancel()
        workers.ends[0].set()
    else:
        workers.ends[0].set()
        await asyncio.sleep(0)
        second.cancel()
    await run_pending_tasks()
    assert workers.started[-1] == "c"
    await cancel([first, second, third])
    tasks = await workers.begin(["d"])
    assert workers.started[-1] == "d"
    await cancel(tasks)

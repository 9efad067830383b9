"""Requests that reserve memory until the test ends them."""

from __future__ import annotations

import asyncio

from model.errors import MemoryFull
from model.serving.memory_budget import MemoryBudget, Reservation


async def run_tasks() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Callers:
    """Requests of different callers that share one budget."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._finished: dict[Reservation, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, amount: int) -> asyncio.Future[Reservation]:
        """Start a request that reserves `amount` bytes. The future is done once they are reserved or rejected."""
        reserved: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()

        async def request() -> None:
            try:
                async with self._budget.reserve(amount, str(len(self._tasks))) as reservation:
                    self._finished[reservation] = asyncio.Event()
                    reserved.set_result(reservation)
                    await self._finished[reservation].wait()
            except MemoryFull as error:
                reserved.set_exception(error)

        self._tasks.append(asyncio.create_task(request()))
        return reserved

    async def finish(self, reservation: Reservation) -> None:
        """End the request, and let waiting requests reserve its memory."""
        self._finished[reservation].set()
        await run_tasks()

    async def finish_all(self) -> None:
        for finished in self._finished.values():
            finished.set()
        await asyncio.gather(*self._tasks)

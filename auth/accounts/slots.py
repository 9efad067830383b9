"""Limits concurrent work, and shares the slots fairly between callers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from auth.errors import HashingBusy


class _Waiter(Struct, eq=False):
    owner: tuple[str, ...]
    granted: asyncio.Future[None]


class FairSlots:
    """Admits `capacity` pieces of work at a time, while up to `max_waiting` callers wait for a slot.

    An owner is a path of names, such as a network and an account in it. A free slot goes to the owner with the least
    work in progress, compared name by name. If too many callers wait, the newest caller of the owner with the most work
    is evicted. So an owner with many callers can delay the others but cannot keep them out.
    """

    def __init__(self, capacity: int, max_waiting: int) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._running: list[tuple[str, ...]] = []
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def acquire(self, *owner: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it. Raises HashingBusy."""
        await self.take(*owner)
        try:
            yield
        finally:
            self.release(*owner)

    async def take(self, *owner: str) -> None:
        """Wait for a slot and take it; call `release` when the work is done. Raises HashingBusy."""
        waiter = _Waiter(owner, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._grant_free_slots()
        if len(self._waiting) > self._max_waiting:
            self._evict()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if _is_granted(waiter):
                self._running.remove(owner)
            self._grant_free_slots()
            raise

    def release(self, *owner: str) -> None:
        self._running.remove(owner)
        self._grant_free_slots()

    def _grant_free_slots(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter.granted.cancelled()]
        while self._waiting and len(self._running) < self._capacity:
            work = _count_work(self._running)
            waiter = min(self._waiting, key=lambda waiter: _compute_load(work, waiter.owner))
            self._waiting.remove(waiter)
            self._running.append(waiter.owner)
            waiter.granted.set_result(None)

    def _evict(self) -> None:
        work = _count_work([*self._running, *(waiter.owner for waiter in self._waiting)])
        newest_first = reversed(self._waiting)
        evicted = max(newest_first, key=lambda waiter: _compute_load(work, waiter.owner))
        self._waiting.remove(evicted)
        evicted.granted.set_exception(HashingBusy())


def _is_granted(waiter: _Waiter) -> bool:
    granted = waiter.granted
    return granted.done() and not granted.cancelled() and granted.exception() is None


def _count_work(owners: Sequence[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """Count the work of each owner, and of all owners whose paths begin with the same names."""
    return Counter(owner[:length] for owner in owners for length in range(1, len(owner) + 1))


def _compute_load(work: Counter[tuple[str, ...]], owner: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(work[owner[:length]] for length in range(1, len(owner) + 1))

"""The memory for the images in progress. Each request reserves its share before its body is read and decoded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from model.errors import ImageTooLargeHere, MemoryFull
from model.serving.memory_usage import Allocation, MemoryUsage

WAIT_S = 1.0
_EWMA_WEIGHT = 0.2


class Reservation:
    """The bytes that one request holds, freed when its last holder releases them. For use on one event loop."""

    def __init__(self, budget: MemoryBudget, caller: str, deadline: float) -> None:
        self.allocation = Allocation(caller)
        self.deadline = deadline
        self.held = 0
        self.started_at = time.monotonic()
        self._budget = budget
        self._holders = 1

    @property
    def amount(self) -> int:
        return self.allocation.amount

    async def resize(self, amount: int, while_waiting: int) -> None:
        """Hold `amount` bytes to decode an image; while waiting for them, at most `while_waiting`, the image's length.

        Both are in addition to `held`, the bytes of the request's other images. Raises MemoryFull, ImageTooLargeHere.
        """
        await self._budget.resize(self, self.held + amount, self.held + while_waiting)

    def hold_until_done(self, work: Future[Any]) -> None:
        """Keep the bytes of a cancelled request until the thread that works on its image has finished."""
        loop = asyncio.get_running_loop()
        self._holders += 1

        def release(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed, and the budget with it
                loop.call_soon_threadsafe(self.release)

        work.add_done_callback(release)

    def release(self) -> None:
        """Release the bytes. Each holder calls this once."""
        self._holders -= 1
        if self._holders == 0:
            self._budget.free(self)


@dataclass(slots=True, eq=False)
class _Waiter:
    reservation: Reservation
    amount: int
    granted: asyncio.Future[bool]


class MemoryBudget:
    """`total` bytes for the requests of one event loop. `on_change` is called with the reserved bytes.

    Requests wait for at most `wait_s` seconds. Small ones need not wait behind large ones. Large ones are served in the
    order of arrival, those to be decoded before those to be read. `MemoryUsage` has the limits.
    """

    def __init__(
        self, total: int, *, wait_s: float = WAIT_S, on_change: Callable[[int], object] = lambda _: None
    ) -> None:
        self._usage = MemoryUsage(total)
        self._wait_s = wait_s
        self._on_change = on_change
        self._decode_waiters: list[_Waiter] = []
        self._read_waiters: list[_Waiter] = []
        self._mean_hold_s = 0.0

    @property
    def total(self) -> int:
        return self._usage.total

    @property
    def reserved(self) -> int:
        return self._usage.reserved

    @property
    def largest(self) -> int:
        """The most that one request may reserve."""
        return self._usage.largest

    @property
    def is_contended(self) -> bool:
        """Whether a request waits for memory."""
        return bool(self._decode_waiters or self._read_waiters)

    @asynccontextmanager
    async def reserve(self, amount: int, caller: str = "", deadline: float = math.inf) -> AsyncIterator[Reservation]:
        """Reserve memory to read a body. Waits, but not past `deadline` (of time.monotonic()).

        Raises MemoryFull, ImageTooLargeHere.
        """
        reservation = Reservation(self, caller, deadline)
        try:
            await self._obtain(reservation, amount, self._read_waiters)
            yield reservation
        finally:
            reservation.release()

    async def resize(self, reservation: Reservation, amount: int, while_waiting: int) -> None:
        """Implement `Reservation.resize`."""
        self._usage.start_decoding(reservation.allocation)
        if amount <= reservation.amount or (amount <= self.largest and self._may_proceed(reservation, amount)):
            self._set_amount(reservation, amount)
        else:
            self._set_amount(reservation, min(while_waiting, reservation.amount))
            await self._obtain(reservation, amount, self._decode_waiters)
        self._wake_waiters()

    def free(self, reservation: Reservation) -> None:
        """Implement the last `Reservation.release`."""
        self._mean_hold_s += _EWMA_WEIGHT * (time.monotonic() - reservation.started_at - self._mean_hold_s)
        self._set_amount(reservation, 0)
        self._wake_waiters()

    async def _obtain(self, reservation: Reservation, amount: int, waiters: list[_Waiter]) -> None:
        """Set the amount at once, or append to `waiters` and wait for it."""
        if amount > self.largest:
            raise ImageTooLargeHere(
                f"Decoding the image takes {_to_megabytes(amount)} MB of memory; the limit is "
                f"{_to_megabytes(self.largest)} MB. Scale it down, or send a baseline JPEG."
            )
        if self._may_proceed(reservation, amount):
            self._set_amount(reservation, amount)
            return
        waiter = _Waiter(reservation, amount, asyncio.get_running_loop().create_future())
        waiters.append(waiter)
        self._wake_waiters()
        try:
            async with asyncio.timeout(min(self._wait_s, reservation.deadline - time.monotonic())):
                granted = await waiter.granted
        except TimeoutError:
            granted = False
        finally:
            waiters.remove(waiter)
        if not granted:
            retry_after_s = max(1, math.ceil(self._mean_hold_s))
            raise MemoryFull("The memory for images is in use. Try again later.", retry_after_s=retry_after_s)

    def _may_proceed(self, reservation: Reservation, amount: int) -> bool:
        """Whether the amount fits and, unless it is small, no earlier request waits for memory."""
        is_reading = reservation.allocation.is_reading
        others_wait = bool(self._decode_waiters) or (is_reading and bool(self._read_waiters))
        return self._fits(reservation, amount) and (self._usage.is_small(amount) or not others_wait)

    def _fits(self, reservation: Reservation, amount: int, without: Sequence[_Waiter] = ()) -> bool:
        return self._usage.fits(
            reservation.allocation,
            amount,
            large_waits=self._is_large_waiting(),
            without=[waiter.reservation.allocation for waiter in without],
        )

    def _is_large_waiting(self) -> bool:
        if not self._decode_waiters and not self._read_waiters:
            return False
        waiters = chain(self._decode_waiters, self._read_waiters)
        return any(not waiter.granted.done() and not self._usage.is_small(waiter.amount) for waiter in waiters)

    def _set_amount(self, reservation: Reservation, amount: int) -> None:
        self._usage.resize(reservation.allocation, amount)
        self._on_change(self.reserved)

    def _wake_waiters(self) -> None:
        if not self._decode_waiters and not self._read_waiters:
            return
        while self._grant_waiters():  # granting a large request may lift the limit on small ones
            pass
        self._evict_waiters()

    def _grant_waiters(self) -> bool:
        """Grant all small requests that fit, and large ones until the first that does not. Returns whether any was."""
        large_blocked = any_granted = False
        for waiter in [*self._decode_waiters, *self._read_waiters]:
            is_small = self._usage.is_small(waiter.amount)
            if waiter.granted.done() or (large_blocked and not is_small):
                continue
            if self._fits(waiter.reservation, waiter.amount):
                self._set_amount(waiter.reservation, waiter.amount)
                waiter.granted.set_result(True)
                any_granted = True
            elif not is_small:
                large_blocked = True
        return any_granted

    def _evict_waiters(self) -> None:
        """Evict the latest requests if the bodies they hold are all that keeps the first image from being decoded.

        Otherwise requests that hold bodies and wait for each other would all time out.
        """
        large = [
            waiter
            for waiter in self._decode_waiters
            if not waiter.granted.done() and not self._usage.is_small(waiter.amount)
        ]
        evicted: list[_Waiter] = []
        while len(large) > 1 and not self._fits(large[0].reservation, large[0].amount, evicted):
            evicted.append(large.pop())
        if evicted and self._fits(large[0].reservation, large[0].amount, evicted):
            for waiter in evicted:
                waiter.granted.set_result(False)


def _to_megabytes(amount: int) -> int:
    return math.ceil(amount / 1_000_000)

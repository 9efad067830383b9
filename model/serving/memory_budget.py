"""The memory for images in progress. Each request reserves memory before its body is read and before it is decoded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import Struct

from model.errors import ImageTooLargeHere, MemoryFull
from model.serving.memory_usage import Allocation, MemoryUsage

WAIT_S = 1.0
_EWMA_WEIGHT = 0.2


class Reservation:
    """The bytes that one request holds; freed when the last holder releases them. Use it on one event loop only."""

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
        """Hold `amount` bytes to decode an image. While waiting, hold at most `while_waiting`, the file's length.

        Both are added to `held`, the bytes of the request's other images. Raises MemoryFull, ImageTooLargeHere.
        """
        await self._budget.resize(self, self.held + amount, self.held + while_waiting)

    def hold_until_done(self, work: Future[Any]) -> None:
        """Keep the bytes of a cancelled request until the worker thread has finished with its image."""
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


class _Waiter(Struct, eq=False):
    """A request that waits for `amount` bytes. `granted` is cancelled when the request times out or is cancelled."""

    reservation: Reservation
    amount: int
    is_small: bool
    granted: asyncio.Future[bool]


class _Waiters:
    """Waiting requests in the order of arrival. `large` counts those that are not small."""

    def __init__(self) -> None:
        self._waiters: dict[_Waiter, None] = {}
        self.large = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[_Waiter]:
        return iter(self._waiters)

    def add(self, waiter: _Waiter) -> None:
        self._waiters[waiter] = None
        self.large += not waiter.is_small

    def remove(self, waiter: _Waiter) -> bool:
        """Remove the waiter. Returns whether it was still waiting."""
        if waiter not in self._waiters:
            return False
        del self._waiters[waiter]
        self.large -= not waiter.is_small
        return True


class MemoryBudget:
    """Shares `total` bytes among the requests of one event loop. Calls `on_change` with the reserved bytes.

    A request waits for at most `wait_s` seconds. Small requests need not wait behind large ones. Large ones are served
    in the order of arrival, those ready to be decoded before those still to be read. `MemoryUsage` sets the limits.
    """

    def __init__(
        self, total: int, *, wait_s: float = WAIT_S, on_change: Callable[[int], object] = lambda _: None
    ) -> None:
        self._usage = MemoryUsage(total)
        self._wait_s = wait_s
        self._on_change = on_change
        self._decode_waiters = _Waiters()
        self._read_waiters = _Waiters()
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
            await self._obtain(reservation, amount)
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
            await self._obtain(reservation, amount)
        self._wake_waiters()

    def free(self, reservation: Reservation) -> None:
        """Implement the last `Reservation.release`."""
        self._mean_hold_s += _EWMA_WEIGHT * (time.monotonic() - reservation.started_at - self._mean_hold_s)
        held = reservation.amount
        self._set_amount(reservation, 0)
        if held:
            self._wake_waiters()

    async def _obtain(self, reservation: Reservation, amount: int) -> None:
        """Set the amount immediately, or wait for it. Raises MemoryFull, ImageTooLargeHere."""
        if amount > self.largest:
            raise ImageTooLargeHere(
                f"Decoding the image takes {_to_megabytes(amount)} MB of memory; the limit is "
                f"{_to_megabytes(self.largest)} MB. Scale it down, or send a baseline JPEG."
            )
        if self._may_proceed(reservation, amount):
            self._set_amount(reservation, amount)
            return
        is_small, granted = self._usage.is_small(amount), asyncio.get_running_loop().create_future()
        if not await self._wait(_Waiter(reservation, amount, is_small, granted)):
            retry_after_s = max(1, math.ceil(self._mean_hold_s))
            raise MemoryFull("The memory for images is in use. Try again later.", retry_after_s=retry_after_s)

    async def _wait(self, waiter: _Waiter) -> bool:
        """Wait for the amount. Returns whether it was granted."""
        waiters = self._find_waiters(waiter.reservation)
        waiters.add(waiter)
        # A request for decoding may have released memory, or may need others to be evicted.
        if not waiter.reservation.allocation.is_reading:
            self._wake_waiters()
        try:
            async with asyncio.timeout(min(self._wait_s, waiter.reservation.deadline - time.monotonic())):
                return await waiter.granted
        except TimeoutError:
            return False
        finally:
            # This request no longer blocks later large requests or limits small ones.
            if waiters.remove(waiter) and not waiter.is_small:
                self._wake_waiters()

    def _find_waiters(self, reservation: Reservation) -> _Waiters:
        return self._read_waiters if reservation.allocation.is_reading else self._decode_waiters

    def _may_proceed(self, reservation: Reservation, amount: int) -> bool:
        """Whether the amount fits and, unless it is small, no large request must be served before it."""
        is_reading = reservation.allocation.is_reading
        earlier = self._decode_waiters.large + (self._read_waiters.large if is_reading else 0)
        return self._fits(reservation, amount) and (self._usage.is_small(amount) or not earlier)

    def _fits(self, reservation: Reservation, amount: int, without: Sequence[_Waiter] = ()) -> bool:
        return self._usage.fits(
            reservation.allocation,
            amount,
            large_waits=self._is_large_waiting,
            without=[waiter.reservation.allocation for waiter in without],
        )

    @property
    def _is_large_waiting(self) -> bool:
        return bool(self._decode_waiters.large or self._read_waiters.large)

    def _set_amount(self, reservation: Reservation, amount: int) -> None:
        self._usage.resize(reservation.allocation, amount)
        self._on_change(self.reserved)

    def _wake_waiters(self) -> None:
        if not self.is_contended:
            return
        large_waited = self._is_large_waiting
        self._grant_waiters()
        if large_waited and not self._is_large_waiting:  # small requests are no longer limited
            self._grant_waiters()
        self._evict_waiters()

    def _grant_waiters(self) -> None:
        """Grant every small request that fits, and large requests in order until one does not fit."""
        large_blocked = False
        for waiter in [*self._decode_waiters, *self._read_waiters]:
            if waiter.granted.done() or (large_blocked and not waiter.is_small):
                continue
            if self._fits(waiter.reservation, waiter.amount):
                self._set_amount(waiter.reservation, waiter.amount)
                self._end_wait(waiter, granted=True)
            elif not waiter.is_small:
                large_blocked = True

    def _end_wait(self, waiter: _Waiter, *, granted: bool) -> None:
        self._find_waiters(waiter.reservation).remove(waiter)
        waiter.granted.set_result(granted)

    def _evict_waiters(self) -> None:
        """Evict the newest large requests if only the bodies they hold prevent decoding the first image.

        Otherwise requests that hold bodies and wait for each other would all time out.
        """
        if self._decode_waiters.large < 2:
            return
        large = [waiter for waiter in self._decode_waiters if not waiter.granted.done() and not waiter.is_small]
        if not large or not self._fits(large[0].reservation, large[0].amount, large[1:]):
            return
        evicted: list[_Waiter] = []
        while not self._fits(large[0].reservation, large[0].amount, evicted):
            evicted.append(large.pop())
        for waiter in evicted:
            self._end_wait(waiter, granted=False)


def _to_megabytes(amount: int) -> int:
    return math.ceil(amount / 1_000_000)

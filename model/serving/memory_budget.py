"""The memory that images in flight may take together, reserved before they are read and before they are decoded."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from model.errors import ImageTooLargeHere, MemoryFull

K = TypeVar("K")

WAIT_S = 1.0
# What is at most this part of the whole is small, and finds room beside any number of large ones.
_SMALL_PART = 32
_KEPT_FOR_SMALL_PART = 8
_EWMA_WEIGHT = 0.2


class Reservation:
    """What one request holds of a budget. Given back when everyone who holds it has let go; used on one event loop."""

    def __init__(self, budget: MemoryBudget, caller: str, deadline: float) -> None:
        self.amount = 0
        self.caller = caller
        self.deadline = deadline
        self.is_reading = True
        self.since = time.monotonic()
        self._budget = budget
        self._holders = 1

    async def resize(self, amount: int, meanwhile: int) -> None:
        """Hold `amount` once the header is known; no more than `meanwhile`, the body's length, until there is room.

        Raises MemoryFull, ImageTooLargeHere.
        """
        await self._budget.decode(self, amount, meanwhile)

    def hold_until_done(self, work: Future[Any]) -> None:
        """Keep the bytes of an abandoned request until the thread that works on it has ended."""
        loop = asyncio.get_running_loop()
        self._holders += 1

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for room any more
                loop.call_soon_threadsafe(self.release)

        work.add_done_callback(ended)

    def release(self) -> None:
        """Let go; to be called once by each holder."""
        self._holders -= 1
        if self._holders == 0:
            self._budget.take_back(self)


@dataclass(slots=True, eq=False)
class _Waiter:
    reservation: Reservation
    amount: int
    granted: asyncio.Future[bool]


class MemoryBudget:
    """`total` bytes for the requests of one event loop. `on_change` is told how many are reserved.

    An eighth is for small requests alone, so that large ones never keep them out; while a large one waits, one caller's
    small ones have no more than that, so that they do not keep it out either. Large ones are served in the order of
    coming, those before decoding first. Large bodies that are being read fill half at most, all of them three
    quarters; the small ones of one caller a quarter, and so do its large ones, but for the first: whoever sends slowly
    keeps nobody's image from being decoded.
    """

    def __init__(
        self, total: int, *, wait_s: float = WAIT_S, on_change: Callable[[int], object] = lambda _: None
    ) -> None:
        self.total = total
        self.reserved = 0
        self._kept_for_small = total // _KEPT_FOR_SMALL_PART
        self._reading = self._small = 0  # bytes of bodies that are being read, and of small requests
        self._small_of: Counter[tuple[str, bool]] = Counter()  # the latter by caller and whether they are being read
        self._large_read_of: Counter[str] = Counter()  # bytes of large bodies that are being read, by caller
        self._wait_s = wait_s
        self._on_change = on_change
        self._to_decode: list[_Waiter] = []
        self._to_read: list[_Waiter] = []
        self._held_s = 0.0

    @property
    def largest(self) -> int:
        """The most that one request can have."""
        return self.total - self._kept_for_small

    @asynccontextmanager
    async def reserved_for(
        self, amount: int, caller: str = "", deadline: float = math.inf
    ) -> AsyncIterator[Reservation]:
        """Room for a body of unknown content. Waits for a while, and not past `deadline` (of time.monotonic()).

        Raises MemoryFull, ImageTooLargeHere.
        """
        reservation = Reservation(self, caller, deadline)
        try:
            await self._obtain(reservation, amount, self._to_read)
            yield reservation
        finally:
            reservation.release()

    async def decode(self, reservation: Reservation, amount: int, meanwhile: int) -> None:
        """See Room.resize."""
        self._count(reservation, -1)
        reservation.is_reading = False
        self._count(reservation, 1)
        if amount <= reservation.amount:
            self._set(reservation, amount)
            self._wake()
            return
        if meanwhile < reservation.amount and not self._may_go(reservation, amount):
            self._set(reservation, meanwhile)
        await self._obtain(reservation, amount, self._to_decode)
        self._wake()

    def take_back(self, reservation: Reservation) -> None:
        """See Room.release."""
        self._held_s += _EWMA_WEIGHT * (time.monotonic() - reservation.since - self._held_s)
        self._set(reservation, 0)
        self._wake()

    async def _obtain(self, reservation: Reservation, amount: int, line: list[_Waiter]) -> None:
        if amount > self.largest:
            raise ImageTooLargeHere(
                f"The image takes {_megabytes(amount)} MB of memory to decode; one may take {_megabytes(self.largest)} "
                "MB here. Scale it down, or send a baseline JPEG."
            )
        if self._may_go(reservation, amount):
            self._set(reservation, amount)
            return
        waiter = _Waiter(reservation, amount, asyncio.get_running_loop().create_future())
        line.append(waiter)
        self._wake()
        try:
            async with asyncio.timeout(min(self._wait_s, reservation.deadline - time.monotonic())):
                granted = await waiter.granted
        except TimeoutError:
            granted = False
        finally:
            line.remove(waiter)
        if not granted:
            raise self._full()

    def _may_go(self, reservation: Reservation, amount: int) -> bool:
        """Whether there is room, and nobody before who needs it."""
        ahead = bool(self._to_decode) or (reservation.is_reading and bool(self._to_read))
        return self._fits(reservation, amount) and (self._is_small(amount) or not ahead)

    def _is_small(self, amount: int) -> bool:
        return amount <= self.total // _SMALL_PART

    def _fits(self, reservation: Reservation, amount: int, without: Sequence[Reservation] = ()) -> bool:
        """Whether there is room for `amount`, once those who are `without` have left."""
        others, other_small = self.reserved - reservation.amount, self._small - self._small_part(reservation)
        for leaving in without:
            others, other_small = others - leaving.amount, other_small - self._small_part(leaving)
        if others + amount > self.total or (
            reservation.is_reading and not self._may_be_read(reservation.caller, amount)
        ):
            return False
        if self._is_small(amount):
            its_small = self._small_part_of(reservation.caller) - self._small_part(reservation) + amount
            return its_small <= self._kept_for_small or not self._large_waits()
        return others - other_small + amount <= self.largest

    def _may_be_read(self, caller: str, amount: int) -> bool:
        reading = self._reading + amount
        if self._is_small(amount):
            return reading <= self.total * 3 // 4 and self._small_of[caller, True] + amount <= self.total // 4
        of_one = self._large_read_of[caller]
        return not self._reading or (reading <= self.total // 2 and (not of_one or of_one + amount <= self.total // 4))

    def _large_waits(self) -> bool:
        lines = chain(self._to_decode, self._to_read)
        return any(not waiter.granted.done() and not self._is_small(waiter.amount) for waiter in lines)

    def _small_part(self, reservation: Reservation) -> int:
        return reservation.amount if self._is_small(reservation.amount) else 0

    def _small_part_of(self, caller: str) -> int:
        return self._small_of[caller, True] + self._small_of[caller, False]

    def _set(self, reservation: Reservation, amount: int) -> None:
        self._count(reservation, -1)
        reservation.amount = amount
        self._count(reservation, 1)
        self._on_change(self.reserved)

    def _count(self, reservation: Reservation, sign: int) -> None:
        """Add what the room holds to the sums, or take it away."""
        self.reserved += sign * reservation.amount
        self._reading += sign * reservation.amount * reservation.is_reading
        small = self._small_part(reservation)
        self._small += sign * small
        _add(self._small_of, (reservation.caller, reservation.is_reading), sign * small)
        _add(self._large_read_of, reservation.caller, sign * (reservation.amount - small) * reservation.is_reading)

    def _wake(self) -> None:
        """Let in whoever now may: small ones in any case, large ones in turn."""
        if not self._to_decode and not self._to_read:
            return
        while self._let_in():  # a large one that is let in may have kept small ones out
            pass
        self._clear_the_way()

    def _let_in(self) -> bool:
        """Whether anybody was."""
        blocked = somebody = False
        for waiter in [*self._to_decode, *self._to_read]:
            if waiter.granted.done() or (blocked and not self._is_small(waiter.amount)):
                continue
            if self._fits(waiter.reservation, waiter.amount):
                self._set(waiter.reservation, waiter.amount)
                waiter.granted.set_result(True)
                somebody = True
            else:
                blocked = blocked or not self._is_small(waiter.amount)
        return somebody

    def _clear_the_way(self) -> None:
        """Send away the last of those whose bodies alone keep the first from being decoded: or none ever would."""
        waiting = [one for one in self._to_decode if not one.granted.done() and not self._is_small(one.amount)]
        leaving = list[_Waiter]()
        while len(waiting) > 1 and not self._would_fit(waiting[0], leaving):
            leaving.append(waiting.pop())
        if leaving and self._would_fit(waiting[0], leaving):
            for waiter in leaving:
                waiter.granted.set_result(False)

    def _would_fit(self, waiter: _Waiter, leaving: Sequence[_Waiter]) -> bool:
        return self._fits(waiter.reservation, waiter.amount, [other.reservation for other in leaving])

    def _full(self) -> MemoryFull:
        retry_after_s = max(1, math.ceil(self._held_s))
        return MemoryFull("The memory for images is in use. Try again later.", retry_after_s=retry_after_s)


def _add(sums: Counter[K], key: K, change: int) -> None:
    """Who has nothing is not remembered."""
    sums[key] += change
    if not sums[key]:
        del sums[key]


def _megabytes(amount: int) -> int:
    return math.ceil(amount / 1_000_000)

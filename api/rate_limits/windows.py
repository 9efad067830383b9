"""Sliding windows: how many requests a caller has made lately.

A window is cut into slices, each a count and the moment at which its last request leaves the window. So no window ever
holds more requests than the limit allows, wherever it begins; what a caller has used up is given back late by one slice
at most; and a caller takes the same little memory, however high the limit is.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from limits import RateLimitItem

SLICES = 60
_FORGOTTEN_A_HIT = 10  # callers who are gone: more than come, and too few to hold anybody up


class StoreUnavailable(Exception):
    """The windows cannot be asked now. The message is a word on why, without secrets."""


@dataclass(frozen=True, slots=True)
class LimitResult:
    """How a caller stands with the limit `item`: whether this request may pass and how many more may.

    Some of it is given back at `reset_at`, in seconds of time.monotonic().
    """

    item: RateLimitItem
    allowed: bool
    remaining: int
    reset_at: float


class Windows(Protocol):
    """Where requests are counted."""

    @property
    def reduced(self) -> bool:
        """Whether less than the whole rate is granted, because the store of the counts is away."""

    async def open(self) -> None:
        """Find out whether requests can be counted; may be called again. Raises StoreUnavailable."""

    async def hit(self, item: RateLimitItem, name: str, caller: str) -> LimitResult:
        """Count a request of `caller` under the limit called `name`, unless it is used up. Raises StoreUnavailable."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Slice:
    number: int
    count: int
    ends_at: float


class LocalWindows:
    """Counts in this process. `clock` tells seconds that never run backwards."""

    reduced = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By the window's length: who asked last is last, so that who is gone is first.
        self._callers: dict[int, OrderedDict[str, list[_Slice]]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        """The callers who are remembered, once for each limit."""
        return sum(map(len, self._callers.values()))

    async def open(self) -> None:
        """Nothing to open."""

    async def hit(self, item: RateLimitItem, name: str, caller: str) -> LimitResult:
        now, window_s = self._clock(), item.get_expiry()
        slices = self._slices(window_s, item.key_for(name, caller), now)
        used = sum(entry.count for entry in slices)
        allowed = used < item.amount
        if allowed:
            number = int(now * SLICES / window_s)
            if not slices or slices[-1].number != number:
                slices.append(_Slice(number, 0, now))
            slices[-1].count += 1
            slices[-1].ends_at = now + window_s
        reset_at = slices[0].ends_at if slices else now + window_s
        return LimitResult(item, allowed, item.amount - used - allowed, reset_at)

    async def close(self) -> None:
        """Nothing to close."""

    def _slices(self, window_s: int, key: str, now: float) -> list[_Slice]:
        callers = self._callers[window_s]
        slices = callers.setdefault(key, [])
        callers.move_to_end(key)
        while slices and slices[0].ends_at <= now:
            slices.pop(0)
        for _ in range(_FORGOTTEN_A_HIT):
            oldest, its_slices = next(iter(callers.items()))
            if oldest == key or (its_slices and its_slices[-1].ends_at > now):
                break
            del callers[oldest]
        return slices

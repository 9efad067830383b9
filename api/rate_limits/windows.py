"""Sliding windows: how many requests a caller has made in the last second, minute, hour or day.

A window is divided into slices. Each has a count, and the time at which its last request leaves the window. Therefore
no period of the window's length ever contains more requests than the limit, capacity is freed at most one slice late,
and the memory for a caller is small and does not depend on the limit.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Protocol

from limits import RateLimitItem, RateLimitItemPerSecond
from msgspec import Struct

SLICES = 60
# A request that only tests whether a store responds.
PROBE = RateLimitItemPerSecond(1_000_000), "probe", "gateway"
_MAX_EXPIRED_PER_HIT = 10  # more than a hit can add, and few enough to remove quickly


class StoreUnavailable(Exception):
    """The store of the counts does not respond. The message is a short reason without secrets."""


class LimitResult(Struct, frozen=True):
    """Whether the limit `item` allows this request, and how many more requests it allows now.

    It allows more from `reset_at` on, in seconds of time.monotonic().
    """

    item: RateLimitItem
    allowed: bool
    remaining: int
    reset_at: float


class Windows(Protocol):
    """A store that counts requests."""

    @property
    def reduced(self) -> bool:
        """Whether only a part of each rate is allowed, because a store is unavailable."""

    async def open(self) -> None:
        """Check that the store can count requests; may be called again. Raises StoreUnavailable."""

    async def hit(self, item: RateLimitItem, name: str, caller: str, number: int = 1) -> LimitResult:
        """Count `number` requests of `caller` under the limit called `name`, if all are allowed.

        Raises StoreUnavailable.
        """

    async def close_connections(self) -> None:
        """Close connections that are not in use. The next request opens new ones."""

    async def close(self) -> None: ...


class _Slice(Struct):
    number: int
    count: int
    ends_at: float


class LocalWindows:
    """Counts in this process. `clock` returns seconds that never go backwards."""

    reduced = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By window length. Each is ordered by the last request, so that expired callers come first.
        self._callers: dict[int, OrderedDict[str, list[_Slice]]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        """The number of callers in memory, counted once for each limit."""
        return sum(map(len, self._callers.values()))

    async def open(self) -> None:
        """Does nothing: the process's memory is always available."""

    async def hit(self, item: RateLimitItem, name: str, caller: str, number: int = 1) -> LimitResult:
        now, window_s = self._clock(), item.get_expiry()
        slices = self._find_slices(window_s, item.key_for(name, caller), now)
        used = sum(entry.count for entry in slices)
        allowed = used + number <= item.amount
        if allowed:
            current = int(now * SLICES / window_s)
            if not slices or slices[-1].number != current:
                slices.append(_Slice(current, 0, now))
            slices[-1].count += number
            slices[-1].ends_at = now + window_s
        reset_at = slices[0].ends_at if slices else now + window_s
        return LimitResult(item, allowed, item.amount - used - number * allowed, reset_at)

    async def close_connections(self) -> None:
        """Does nothing: there are no connections."""

    async def close(self) -> None:
        """Does nothing."""

    def _find_slices(self, window_s: int, key: str, now: float) -> list[_Slice]:
        """Return the caller's slices without expired ones, and remove a few expired callers."""
        callers = self._callers[window_s]
        slices = callers.setdefault(key, [])
        callers.move_to_end(key)
        while slices and slices[0].ends_at <= now:
            slices.pop(0)
        for _ in range(_MAX_EXPIRED_PER_HIT):
            oldest, oldest_slices = next(iter(callers.items()))
            if oldest == key or (oldest_slices and oldest_slices[-1].ends_at > now):
                break
            del callers[oldest]
        return slices

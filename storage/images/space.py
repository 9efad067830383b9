"""Limiting how much several processes together store, without a counter that they share."""

from __future__ import annotations

import time
from collections.abc import Callable

RECHECK_S = 60.0
_SHARE = 10


class SpaceLimit:
    """Admits writes while the store holds less than `limit` bytes. For one thread.

    A process adds at most a tenth of the free space, and only for a minute, before it measures again, since others
    write at the same time. `measure` returns how many bytes the store holds.
    """

    def __init__(self, measure: Callable[[], int], limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._limit = limit
        self._clock = clock
        self._measured_at: float | None = None
        self._allowance = 0
        self.used = 0

    def admits(self, size: int) -> bool:
        """Whether so many bytes can be written, which then count as written. Raises what `measure` raises."""
        if self._is_outdated() or (size > self._allowance and size <= self._limit - self.used):
            self.used = self._measure()
            self._measured_at = self._clock()
            free = self._limit - self.used
            self._allowance = max(free // _SHARE, min(size, free))
        if size > self._allowance:
            return False
        self._allowance -= size
        self.used += size
        return True

    def _is_outdated(self) -> bool:
        return self._measured_at is None or self._clock() - self._measured_at > RECHECK_S

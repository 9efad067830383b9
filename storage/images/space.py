"""Limiting how much several processes together store, without a counter that they share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

RECHECK_S = 60.0
_PAUSE_FACTOR = 20  # measuring takes at most a twentieth of the time
_SHARE = 10


class SpaceLimit:
    """Admits writes while the store holds less than `limit` bytes. For one thread.

    A process adds at most a tenth of the free space, and only for a minute, before it measures again, since others
    write at the same time. It measures less often where that takes long. `measure` returns how many bytes the store
    holds.
    """

    def __init__(self, measure: Callable[[], int], limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._limit = limit
        self._clock = clock
        self._measured_at = -math.inf
        self._duration = 0.0
        self._allowance = 0
        self.used = 0

    def admits(self, size: int) -> bool:
        """Whether so many bytes can be written, which then count as written. Raises what `measure` raises."""
        age = self._clock() - self._measured_at
        is_needed = age > RECHECK_S or self._allowance < size <= self._limit - self.used
        if is_needed and age >= self._duration * _PAUSE_FACTOR:
            self._measure_again(size)
        if size > self._allowance:
            return False
        self._allowance -= size
        self.used += size
        return True

    def _measure_again(self, size: int) -> None:
        started = self._clock()
        self.used = self._measure()
        self._measured_at = self._clock()
        self._duration = self._measured_at - started
        free = self._limit - self.used
        self._allowance = max(free // _SHARE, min(size, free))

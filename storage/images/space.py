"""Limit the total size of what several processes store, without a shared counter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

RECHECK_S = 60.0
_PAUSE_FACTOR = 20  # measuring takes at most a twentieth of the time
_MIN_SHARES = 10


class SpaceLimit:
    """Admits writes while the store holds less than `limit` bytes. Not thread-safe.

    Several `processes` may write to the store. So each process measures the store again once it has used its share of
    the free space (at most a tenth), or after a minute. Measuring takes at most a twentieth of the time. `measure`
    returns the size of the store in bytes.
    """

    def __init__(
        self,
        measure: Callable[[], int],
        limit: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        processes: int = 1,
    ) -> None:
        self._measure = measure
        self._limit = limit
        self._clock = clock
        self._shares = max(_MIN_SHARES, processes)
        self._measured_at = -math.inf
        self._duration = 0.0
        self._allowance = 0
        self.used = 0

    def admits(self, size: int) -> bool:
        """Whether `size` bytes may be written. If so, counts them as used. Raises what `measure` raises."""
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
        self._allowance = max(free // self._shares, min(size, free))

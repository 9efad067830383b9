"""Ids that sort by time: UUIDv7 (RFC 9562, section 5.7) with a counter, never smaller than one before."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from uuid import UUID

_COUNTER_BITS = 12
_RANDOM_BITS = 62


class Ids:
    """A source of ids; any thread may ask. `clock` tells milliseconds since 1970.

    Where the clock steps back, or more ids are asked for than a millisecond has room for, the time in the id goes on
    from the last one (RFC 9562, section 6.2, method 1). 62 random bits keep processes apart.
    """

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0  # milliseconds and counter in one number

    def start_after(self, text: str) -> None:
        """Give no id that sorts before this one, whatever the clock says."""
        number = UUID(text).int
        with self._lock:
            self._last = max(self._last, number >> 80 << _COUNTER_BITS | number >> 64 & 0xFFF)

    def new(self) -> str:
        """The next id, in the usual form of 36 characters."""
        with self._lock:
            # The counter begins low in each millisecond: it has room to grow.
            fresh = self._clock() << _COUNTER_BITS | secrets.randbits(_COUNTER_BITS - 2)
            self._last = max(fresh, self._last + 1)
            milliseconds, counter = divmod(self._last, 1 << _COUNTER_BITS)
        number = milliseconds << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | secrets.randbits(_RANDOM_BITS)
        return str(UUID(int=number))

"""UUIDv7 (RFC 9562, section 5.7), the ids of all records."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from uuid_utils import UUID, uuid7

_NS_PER_MS = 1_000_000
_COUNTER_BITS = 12
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_COUNTER_SHIFT = 64  # the counter replaces `rand_a`; the timestamp is in the bits above it
_TIMESTAMP_SHIFT = 80


def new_id() -> str:
    """Return a UUIDv7 in its 36-character form."""
    return str(uuid7())


class MonotonicIds:
    """Generates UUIDv7s in ascending order, even when the clock steps back. Thread-safe.

    `clock` returns milliseconds since 1970. The 12 bits after the timestamp are a counter; when they overflow within a
    millisecond, or when the clock steps back, the timestamp runs ahead of the clock (RFC 9562, section 6.2, method 1).
    The other 62 bits are random and keep the ids of different processes apart.
    """

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // _NS_PER_MS) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0  # timestamp and counter in one number

    def start_after(self, earlier_id: str) -> None:
        """Make every later id sort after `earlier_id`, whatever the clock says."""
        number = UUID(earlier_id).int
        timestamp, counter = number >> _TIMESTAMP_SHIFT, number >> _COUNTER_SHIFT & _COUNTER_MASK
        with self._lock:
            self._last = max(self._last, timestamp << _COUNTER_BITS | counter)

    def new(self) -> str:
        """Return the next id in its 36-character form."""
        with self._lock:
            # The counter starts low in each millisecond, so that it rarely overflows.
            now = self._clock() << _COUNTER_BITS | secrets.randbits(_COUNTER_BITS - 2)
            self._last = max(now, self._last + 1)
            timestamp, counter = divmod(self._last, 1 << _COUNTER_BITS)
        random = uuid7(nanoseconds=timestamp * _NS_PER_MS).int & ~(_COUNTER_MASK << _COUNTER_SHIFT)
        return str(UUID(int=random | counter << _COUNTER_SHIFT))

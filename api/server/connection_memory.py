"""The memory of requests that the application has not read yet: heads that arrive, and bodies that wait."""

from __future__ import annotations

from typing import Protocol

# Of one process: a thousand ordinary requests take an eighth of it. With Python's objects it takes 1.4 times as much,
# which is part of the memory by which a process grows (GROWTH_BYTES in api/services/capacity.py).
LIMIT_BYTES = 8 << 20


class Holder(Protocol):
    """A connection."""

    @property
    def held_bytes(self) -> int:
        """The bytes received that it holds."""
        ...

    def drop(self) -> None:
        """Free them, and close the connection."""
        ...


class ConnectionMemory:
    """Drops the connections that hold the most when all together hold more than `limit_bytes`."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._holders: set[Holder] = set()
        self._counted_bytes = 0  # held at the last count, and all received since

    def add(self, holder: Holder) -> None:
        self._holders.add(holder)

    def discard(self, holder: Holder) -> None:
        self._holders.discard(holder)

    def count_received(self, count: int) -> None:
        """Count bytes that a connection has received. Who has read how many is only determined from time to time."""
        self._counted_bytes += count
        if self._counted_bytes > self._limit_bytes:
            self._drop_largest()

    def _drop_largest(self) -> None:
        """Drop connections until seven eighths are held, so that the next count is due only after an eighth more."""
        held = {holder: holder.held_bytes for holder in self._holders}
        self._counted_bytes = sum(held.values())
        for holder in sorted(held, key=held.__getitem__, reverse=True):
            if self._counted_bytes <= self._limit_bytes * 7 // 8:
                return
            self._counted_bytes -= held[holder]
            holder.drop()

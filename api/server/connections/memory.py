"""Limits the memory of requests that the application has not read yet: arriving heads, and waiting bodies."""

from __future__ import annotations

from typing import Protocol

# For one process. A thousand ordinary requests take an eighth of it. Python's objects add another 40 %. All of this is
# included in GROWTH_BYTES in api/services/capacity.py.
LIMIT_BYTES = 8 << 20


class Holder(Protocol):
    """A connection."""

    @property
    def held_bytes(self) -> int:
        """The received bytes that it holds."""
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
        """Count received bytes. Bytes that the application has read are subtracted when the limit seems exceeded."""
        self._counted_bytes += count
        if self._counted_bytes > self._limit_bytes:
            self._drop_largest()

    def _drop_largest(self) -> None:
        """Drop connections down to seven eighths of the limit, so that an eighth can arrive before the next count."""
        held = {holder: holder.held_bytes for holder in self._holders}
        self._counted_bytes = sum(held.values())
        for holder in sorted(held, key=held.__getitem__, reverse=True):
            if self._counted_bytes <= self._limit_bytes * 7 // 8:
                return
            self._counted_bytes -= held[holder]
            holder.drop()

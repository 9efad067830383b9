"""Sliding windows in an SQLite file, which the workers of one machine share."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limits import RateLimitItem

from api.rate_limits.windows import PROBE, SLICES, LimitResult, StoreUnavailable

LOCK_LIMIT_S = 0.3  # how long a request waits for the file before the store is considered unavailable

# One statement checks the limit and counts the requests, so that no other request can come in between.
_HIT = """
INSERT INTO slices (key, number, count, ends_at)
SELECT :key, :slice, :number, :now + :window_s
WHERE (SELECT coalesce(sum(count), 0) FROM slices WHERE key = :key AND ends_at > :now) + :number <= :amount
ON CONFLICT (key, number) DO UPDATE SET count = count + excluded.count, ends_at = max(ends_at, excluded.ends_at)
"""
_USED = """
SELECT coalesce(sum(count), 0), min(ends_at), (SELECT min(ends_at) FROM slices)
FROM slices WHERE key = :key AND ends_at > :now
"""
_DELETE_EXPIRED = """
DELETE FROM slices WHERE (key, number) IN
(SELECT key, number FROM slices WHERE ends_at <= :now ORDER BY ends_at LIMIT 10)
"""
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
PRAGMA wal_autocheckpoint = 100;
CREATE TABLE IF NOT EXISTS slices (
  key TEXT NOT NULL, number INTEGER NOT NULL, count INTEGER NOT NULL, ends_at REAL NOT NULL,
  PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS slices_by_end ON slices (ends_at);
"""


class MachineWindows:
    """Counts in an SQLite file, which should be on a file system in memory.

    A hit occupies the event loop for some 30 microseconds. While another worker holds the file's lock, it retries for
    at most LOCK_LIMIT_S. `clock` returns seconds and must be the same clock in all processes.
    """

    reduced = False

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self.hit(*PROBE)

    async def hit(self, item: RateLimitItem, name: str, caller: str, number: int = 1) -> LimitResult:
        now, window_s = self._clock(), item.get_expiry()
        parameters = {
            "key": item.key_for(name, caller),
            "slice": int(now * SLICES / window_s),
            "number": number,
            "now": now,
            "window_s": window_s,
            "amount": item.amount,
        }
        try:
            async with asyncio.timeout(LOCK_LIMIT_S):
                counted, _ = await self._execute(_HIT, parameters)
                _, (used, reset_at, oldest) = await self._execute(_USED, parameters)
                if oldest is not None and oldest <= now:
                    await self._execute(_DELETE_EXPIRED, parameters)
        except (sqlite3.Error, TimeoutError) as error:
            await self.close()  # the open file may have been deleted
            raise StoreUnavailable(type(error).__name__) from None
        return LimitResult(item, counted == 1, max(0, item.amount - used), reset_at or now + window_s)

    async def close_connections(self) -> None:
        """Does nothing: the store uses no network connection."""

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _execute(self, statement: str, parameters: Mapping[str, Any]) -> tuple[int, Any]:
        """Return the number of changed rows and the first row. SQLite's own wait would block the event loop."""
        while True:
            try:
                connection = self._connection = self._connection or self._connect()
                cursor = connection.execute(statement, parameters)
                return cursor.rowcount, cursor.fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            await asyncio.sleep(random.uniform(0.0001, 0.002))  # noqa: S311  (so that two workers do not collide again)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

"""Sliding windows that several processes share: the workers of one machine, or all that know one Redis."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from limits import RateLimitItem, RateLimitItemPerSecond

from api.rate_limits.windows import SLICES, LimitResult, StoreUnavailable

# How long a request may wait for a store, once, before that is taken to be away.
MACHINE_WAIT_S = 0.3
REDIS_WAIT_S = 1.0
_REDIS_CONNECTIONS = 8
_PROBE = RateLimitItemPerSecond(1_000_000), "probe", "gateway"

# Each is one transaction: there is no moment between judging and counting.
_HIT = """
INSERT INTO slices (key, number, count, ends_at)
SELECT :key, :number, 1, :now + :window_s
WHERE (SELECT coalesce(sum(count), 0) FROM slices WHERE key = :key AND ends_at > :now) < :amount
ON CONFLICT (key, number) DO UPDATE SET count = count + 1, ends_at = max(ends_at, excluded.ends_at)
"""
_USED = """
SELECT coalesce(sum(count), 0), min(ends_at), (SELECT min(ends_at) FROM slices)
FROM slices WHERE key = :key AND ends_at > :now
"""
_FORGET = """
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

# In milliseconds of Redis' own clock: those of the replicas may differ. `now` is cut to a whole one, so a window ends
# one later: it is never short.
_SCRIPT = """
local amount, window, slices = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = string.format('%d', math.floor(now * slices / window))
local used, current, first = 0, 0, now + window + 1
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local count, ends = string.match(entries[i + 1], '(%d+):(%d+)')
  count, ends = tonumber(count), tonumber(ends)
  if ends <= now then
    redis.call('HDEL', KEYS[1], entries[i])
  else
    used, first = used + count, math.min(first, ends)
    if entries[i] == number then current = count end
  end
end
local allowed = 0
if used < amount then
  allowed = 1
  local ends = now + window + 1
  redis.call('HSET', KEYS[1], number, string.format('%d:%d', current + 1, ends))
  redis.call('PEXPIREAT', KEYS[1], ends)
end
return {allowed, amount - used - allowed, first - now}
"""


class MachineWindows:
    """Counts in an SQLite file that the workers of one machine share, best in a file system that is kept in memory.

    A hit takes some 30 microseconds of the event loop. One that meets another worker's comes again a little later,
    for MACHINE_WAIT_S at most. `clock` tells the same seconds in all processes.
    """

    reduced = False

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self.hit(*_PROBE)

    async def hit(self, item: RateLimitItem, name: str, caller: str) -> LimitResult:
        now, window_s = self._clock(), item.get_expiry()
        facts = {
            "key": item.key_for(name, caller),
            "number": int(now * SLICES / window_s),
            "now": now,
            "window_s": window_s,
            "amount": item.amount,
        }
        try:
            async with asyncio.timeout(MACHINE_WAIT_S):
                allowed, _ = await self._done(_HIT, facts)
                _, (used, reset_at, oldest) = await self._done(_USED, facts)
                if oldest is not None and oldest <= now:
                    await self._done(_FORGET, facts)
        except (sqlite3.Error, TimeoutError) as error:
            await self.close()  # it may have been opened on a file that is gone
            raise StoreUnavailable(type(error).__name__) from None
        return LimitResult(item, allowed == 1, max(0, item.amount - used), reset_at or now + window_s)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _done(self, statement: str, facts: dict[str, Any]) -> tuple[int, Any]:
        """The number of rows changed and the first row read. SQLite's own way to wait would hold up the event loop."""
        while True:
            try:
                connection = self._connection = self._connection or self._connected()
                cursor = connection.execute(statement, facts)
                return cursor.rowcount, cursor.fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            await asyncio.sleep(random.uniform(0.0001, 0.002))  # noqa: S311  (so that two do not meet again)

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


class RedisWindows:
    """Counts in Redis, with one question a request; the event loop never waits for it."""

    reduced = False

    def __init__(self, url: str) -> None:
        # Imported when used: it takes a tenth of a second and some memory.
        from redis.asyncio import ConnectionPool, Redis
        from redis.exceptions import RedisError

        pool = ConnectionPool.from_url(url, max_connections=_REDIS_CONNECTIONS, protocol=2)
        self._redis = Redis.from_pool(pool)
        self._script = cast(Any, self._redis.register_script(_SCRIPT))
        self._failures = RedisError, OSError, TimeoutError
        self._turns = asyncio.Semaphore(_REDIS_CONNECTIONS)
        self._lost = False

    async def open(self) -> None:
        self._lost = False
        await self.hit(*_PROBE)

    async def hit(self, item: RateLimitItem, name: str, caller: str) -> LimitResult:
        key, window_ms = f"atalaya:{item.key_for(name, caller)}", item.get_expiry() * 1000
        async with self._turns:
            if self._lost:  # found out while this one waited
                raise StoreUnavailable("lost")
            try:
                async with asyncio.timeout(REDIS_WAIT_S):
                    allowed, remaining, reset_ms = await self._script([key], [item.amount, window_ms, SLICES])
            except self._failures as error:
                self._lost = True
                raise StoreUnavailable(type(error).__name__) from None
        # No more than the window is told, though it ends with the millisecond: callers count in seconds.
        return LimitResult(item, bool(allowed), remaining, time.monotonic() + min(reset_ms, window_ms) / 1000)

    async def close(self) -> None:
        await self._redis.aclose()

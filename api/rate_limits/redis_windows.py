"""Sliding windows in Redis, which all gateways with the same REDIS_URL share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from limits import RateLimitItem

from api.rate_limits.windows import PROBE, SLICES, LimitResult, StoreUnavailable

REPLY_LIMIT_S = 1.0  # how long a request waits for Redis before the store counts as unavailable
_CONNECTIONS = 8

# Uses Redis's own clock, in milliseconds, because those of the replicas may differ. `now` is rounded down, so a window
# ends one millisecond later: it is never too short.
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


class RedisWindows:
    """Counts in Redis, with one round trip for each request and without blocking the event loop."""

    reduced = False

    def __init__(self, url: str) -> None:
        # Imported only with REDIS_URL: it takes a tenth of a second and some memory.
        from redis.asyncio import ConnectionPool, Redis
        from redis.exceptions import RedisError

        pool = ConnectionPool.from_url(url, max_connections=_CONNECTIONS, protocol=2)
        self._redis = Redis.from_pool(pool)
        self._script = cast(Any, self._redis.register_script(_SCRIPT))
        self._errors = RedisError, OSError, TimeoutError
        self._connection_slots = asyncio.Semaphore(_CONNECTIONS)
        self._unavailable = False

    async def open(self) -> None:
        self._unavailable = False
        await self.hit(*PROBE)

    async def hit(self, item: RateLimitItem, name: str, caller: str) -> LimitResult:
        key, window_ms = f"atalaya:{item.key_for(name, caller)}", item.get_expiry() * 1000
        async with self._connection_slots:
            if self._unavailable:  # another request has found out while this one waited for a slot
                raise StoreUnavailable("lost")
            try:
                async with asyncio.timeout(REPLY_LIMIT_S):
                    allowed, remaining, reset_ms = await self._script([key], [item.amount, window_ms, SLICES])
            except self._errors as error:
                self._unavailable = True
                raise StoreUnavailable(type(error).__name__) from None
        # Without the extra millisecond: callers see whole seconds, and never more than the window.
        return LimitResult(item, bool(allowed), remaining, time.monotonic() + min(reset_ms, window_ms) / 1000)

    async def close_connections(self) -> None:
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        await self._redis.aclose()

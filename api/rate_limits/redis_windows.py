"""Sliding windows in Redis, which all gateways with the same REDIS_URL share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from limits import RateLimitItem

from api.rate_limits.windows import PROBE, SLICES, LimitResult, StoreUnavailable

REPLY_LIMIT_S = 1.0  # how long a request waits for Redis before the store is considered unavailable
_CONNECTIONS = 8

# Uses Redis's clock, in milliseconds, because the clocks of the gateways may differ. `now` is rounded down, so a window
# ends one millisecond later: it is never too short.
#
# A caller's key has a field for each slice of the window, with its count and its end, and fields for the sum of the
# counts (`used`) and the number of the oldest slice (`oldest`). So a request reads only the slices that have expired
# since the previous request, and one or two others.
_SCRIPT = """
local key, amount, window, slices = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local requests = tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local current = math.floor(now * slices / window)
local function text(number) return string.format('%d', number) end
local function read(number)
  local count, ends = string.match(redis.call('HGET', key, text(number)) or '0:0', '(%d+):(%d+)')
  return tonumber(count), tonumber(ends)
end
local state = redis.call('HMGET', key, 'used', 'oldest')
local used, oldest = tonumber(state[1]) or 0, math.min(tonumber(state[2]) or current, current)
local first, expired = now + window + 1, {}
while oldest < current do
  local count, ends = read(oldest)
  if ends > now then break end
  used = used - count
  table.insert(expired, text(oldest))
  oldest = oldest + 1
end
local count, ends = read(oldest)
if ends > now then first = ends end
local counted = 0
if used + requests <= amount then
  counted = requests
  local last = now + window + 1
  if oldest < current then count = read(current) end
  local slice = text(count + requests) .. ':' .. text(last)
  redis.call('HSET', key, 'used', text(used + requests), 'oldest', text(oldest), text(current), slice)
  redis.call('PEXPIREAT', key, last)
elseif #expired > 0 then
  redis.call('HSET', key, 'used', text(used), 'oldest', text(oldest))
end
if #expired > 0 then redis.call('HDEL', key, unpack(expired)) end
return {counted, amount - used - counted, first - now}
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

    async def hit(self, item: RateLimitItem, name: str, caller: str, number: int = 1) -> LimitResult:
        key, window_ms = f"atalaya:windows:{item.key_for(name, caller)}", item.get_expiry() * 1000
        try:
            # The wait for a slot counts too: otherwise a slow Redis would delay requests without limit.
            async with asyncio.timeout(REPLY_LIMIT_S), self._connection_slots:
                if self._unavailable:  # another request found Redis unavailable while this one waited for a slot
                    raise StoreUnavailable("lost")
                arguments = [item.amount, window_ms, SLICES, number]
                counted, remaining, reset_ms = await self._script([key], arguments)
        except self._errors as error:
            self._unavailable = True
            raise StoreUnavailable(type(error).__name__) from None
        # Leave out the extra millisecond: clients get whole seconds, rounded up, which must not exceed the window.
        return LimitResult(item, bool(counted), remaining, time.monotonic() + min(reset_ms, window_ms) / 1000)

    async def close_connections(self) -> None:
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        await self._redis.aclose()

"""Rate limits while their store is unavailable: half of each rate, counted in a more local store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context

import structlog
from limits import RateLimitItem

from api.rate_limits.machine_windows import MachineWindows
from api.rate_limits.redis_windows import RedisWindows
from api.rate_limits.windows import LimitResult, LocalWindows, StoreUnavailable, Windows
from api.services.background.activity import Activity
from api.settings import Settings
from monitoring.metrics import Metrics

RETRY_INTERVAL_S = 0.25
OPEN_LIMIT_S = 0.5  # the longest that a readiness check waits

log = structlog.get_logger("atalaya.limits")


class FallbackWindows:
    """Counts in `windows`; while these are unavailable, counts in `fallback` and allows half of each rate.

    A task checks `windows` until they are available again. `on_change(available)` reports each change, and
    `on_fallback()` each request that was counted in `fallback`. `sleep` waits between two checks.
    """

    def __init__(
        self,
        store: str,
        windows: Windows,
        fallback: Windows,
        *,
        on_change: Callable[[bool], None],
        on_fallback: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._windows = windows
        self._fallback = fallback
        self._on_change = on_change
        self._on_fallback = on_fallback
        self._sleep = sleep
        self._recovery: asyncio.Task[None] | None = None

    @property
    def reduced(self) -> bool:
        return self._recovery is not None

    async def open(self) -> None:
        """Open both stores. Never raises: the gateway serves without `windows`, too."""
        await self._fallback.open()
        if self._recovery is None:
            try:
                async with asyncio.timeout(OPEN_LIMIT_S):
                    await self._windows.open()
                self._on_change(True)
            except (StoreUnavailable, TimeoutError) as error:
                self._start_recovery(error)

    async def hit(self, item: RateLimitItem, name: str, caller: str, number: int = 1) -> LimitResult:
        if self._recovery is None:
            try:
                return await self._windows.hit(item, name, caller, number)
            except StoreUnavailable as error:
                self._start_recovery(error)
        self._on_fallback()
        return await self._fallback.hit(_halve(item), name, caller, number)

    async def close_connections(self) -> None:
        await self._windows.close_connections()

    async def close(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            with suppress(asyncio.CancelledError):
                await self._recovery
        await self._windows.close()
        await self._fallback.close()

    def _start_recovery(self, error: StoreUnavailable | TimeoutError) -> None:
        if self._recovery is None:  # if several requests fail together, only the first reports it
            reason = str(error) or type(error).__name__
            policy = "half of each rate is allowed, counted locally"
            log.error("limits_reduced", store=self._store, reason=reason, policy=policy)
            self._on_change(False)
            # An empty context, so that the task's log lines carry no request's id.
            self._recovery = asyncio.create_task(self._recover(), context=Context())

    async def _recover(self) -> None:
        while True:
            await self._sleep(RETRY_INTERVAL_S)
            try:
                await self._windows.open()
                break
            except (StoreUnavailable, TimeoutError):
                pass  # try again
            except Exception:  # a bug must not leave the limits reduced forever
                log.exception("limits_not_restored", store=self._store)
        self._recovery = None
        self._on_change(True)
        log.info("limits_restored", store=self._store)


def make_windows(settings: Settings, metrics: Metrics, activity: Activity) -> Windows:
    """Count in Redis if it is configured, else in the file that the workers share, else in this process."""
    windows: Windows = LocalWindows()
    if settings.atalaya_shared is not None:
        machine = MachineWindows(settings.atalaya_shared / "limits.db")
        windows = _add_fallback("machine", machine, windows, metrics, activity)
    if settings.redis_url is not None:
        windows = _add_fallback(
            "redis", RedisWindows(settings.redis_url.get_secret_value()), windows, metrics, activity
        )
    return windows


def _add_fallback(store: str, windows: Windows, fallback: Windows, metrics: Metrics, activity: Activity) -> Windows:
    return FallbackWindows(
        store,
        windows,
        fallback,
        on_change=metrics.limit_store_up.labels(store).set,
        on_fallback=metrics.limit_fallbacks.labels(store).inc,
        sleep=activity.sleep,
    )


def _halve(item: RateLimitItem) -> RateLimitItem:
    return type(item)(max(1, item.amount // 2) if item.amount else 0, item.multiples, item.namespace)

"""What holds while the store of the limits is away: half of each rate, counted nearer by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context

import structlog
from limits import RateLimitItem

from api.rate_limits.shared import MachineWindows, RedisWindows
from api.rate_limits.windows import LimitResult, LocalWindows, StoreUnavailable, Windows
from api.settings import Settings
from monitoring.metrics import Metrics

HEAL_POLL_S = 0.25
OPEN_WAIT_S = 0.5  # whoever asks whether the gateway is ready does not wait long

log = structlog.get_logger("atalaya.limits")


class GuardedWindows:
    """`windows`, or half of each rate in `fallback` while they are away. A task looks for them until they are back.

    `on_change(up)` is told how it is now, `on_fallback()` of each request that was counted in `fallback`.
    """

    def __init__(
        self,
        store: str,
        windows: Windows,
        fallback: Windows,
        *,
        on_change: Callable[[bool], None],
        on_fallback: Callable[[], None],
    ) -> None:
        self._store = store
        self._windows = windows
        self._fallback = fallback
        self._on_change = on_change
        self._on_fallback = on_fallback
        self._healing: asyncio.Task[None] | None = None

    @property
    def reduced(self) -> bool:
        return self._healing is not None

    async def open(self) -> None:
        """Never raises: without the store the gateway serves, at half of each rate."""
        await self._fallback.open()
        if self._healing is None:
            try:
                async with asyncio.timeout(OPEN_WAIT_S):
                    await self._windows.open()
                self._on_change(True)
            except (StoreUnavailable, TimeoutError) as error:
                self._lose(error)

    async def hit(self, item: RateLimitItem, name: str, caller: str) -> LimitResult:
        if self._healing is None:
            try:
                return await self._windows.hit(item, name, caller)
            except StoreUnavailable as error:
                self._lose(error)
        self._on_fallback()
        return await self._fallback.hit(_half(item), name, caller)

    async def close(self) -> None:
        if self._healing is not None:
            self._healing.cancel()
            with suppress(asyncio.CancelledError):
                await self._healing
        await self._windows.close()
        await self._fallback.close()

    def _lose(self, error: StoreUnavailable | TimeoutError) -> None:
        if self._healing is None:  # those who waited with the first have nothing new to say
            reason = str(error) or type(error).__name__
            log.error("limits_reduced", store=self._store, reason=reason, policy="half of each rate, counted here")
            self._on_change(False)
            # What it logs later belongs to no request.
            self._healing = asyncio.create_task(self._heal(), context=Context())

    async def _heal(self) -> None:
        while True:
            await asyncio.sleep(HEAL_POLL_S)
            try:
                await self._windows.open()
                break
            except (StoreUnavailable, TimeoutError):
                """Still away."""
            except Exception:  # whatever it is, limits must not stay reduced for it
                log.exception("limits_not_restored", store=self._store)
        self._healing = None
        self._on_change(True)
        log.info("limits_restored", store=self._store)


def _half(item: RateLimitItem) -> RateLimitItem:
    return type(item)(max(1, item.amount // 2) if item.amount else 0, item.multiples, item.namespace)


def make_windows(settings: Settings, metrics: Metrics) -> Windows:
    """Where this gateway counts: in Redis, else in what the workers share, else in this process's memory."""
    windows: Windows = LocalWindows()
    if settings.atalaya_shared is not None:
        windows = _guarded("machine", MachineWindows(settings.atalaya_shared / "limits.db"), windows, metrics)
    if settings.redis_url is not None:
        windows = _guarded("redis", RedisWindows(settings.redis_url.get_secret_value()), windows, metrics)
    return windows


def _guarded(store: str, windows: Windows, fallback: Windows, metrics: Metrics) -> Windows:
    return GuardedWindows(
        store,
        windows,
        fallback,
        on_change=metrics.limit_store_up.labels(store).set,
        on_fallback=metrics.limit_fallbacks.labels(store).inc,
    )

"""Tracks whether requests arrive. Background work pauses while none do, so that a platform can suspend the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from api.services.background import run_in_background
from api.settings import Settings

_FINISH_S = 1.0

log = structlog.get_logger("atalaya.activity")


def make_activity(settings: Settings) -> Activity:
    """Return an activity that becomes idle after IDLE_SECONDS.

    With METRICS_PORT it never does, because the scraped values come from background work.
    """
    return Activity(None if settings.metrics_port is not None else settings.idle_seconds or None)


class Activity:
    """Active at first, idle after `idle_after_s` seconds without a request in progress, active again with the next one.

    With None it is always active. Background loops wait with `sleep` or `wait`.
    """

    def __init__(self, idle_after_s: float | None) -> None:
        self._idle_after_s = idle_after_s
        self._in_progress = 0
        self._last_at = time.monotonic()
        self._active = asyncio.Event()
        self._active.set()
        self._idle = asyncio.Event()
        self._pausing: list[Callable[[], object]] = []
        self._closing: list[Callable[[], Awaitable[object]]] = []

    def begin_request(self) -> None:
        self._in_progress += 1
        self._active.set()
        self._idle.clear()

    def end_request(self) -> None:
        self._in_progress -= 1
        self._last_at = time.monotonic()

    async def wait(self) -> None:
        """Return at once if the process is active, else when the next request arrives."""
        while not self._active.is_set():  # it may become idle again before this task continues
            await self._active.wait()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or if the process is idle then, when the next request arrives."""
        await asyncio.sleep(seconds)
        await self.wait()

    async def run_while_active(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run `work` until cancelled: cancel it when the process becomes idle, and restart it with the next request."""
        while True:
            await self.wait()
            async with run_in_background(work()):
                await self._idle.wait()

    def when_idle(self, act: Callable[[], object]) -> None:
        """Call `act` as soon as the process becomes idle."""
        self._pausing.append(act)

    def close_when_idle(self, close: Callable[[], Awaitable[object]]) -> None:
        """Call `close` once the process is idle and background work in progress has had time to finish."""
        self._closing.append(close)

    async def watch(self) -> None:
        """Detect idleness, until cancelled."""
        if self._idle_after_s is None:
            return
        while True:
            await asyncio.sleep(self._find_remaining(self._idle_after_s))
            if self._in_progress == 0 and self._find_remaining(self._idle_after_s) <= 0:
                self._active.clear()
                self._idle.set()
                for act in self._pausing:
                    act()
                log.info("gateway_idle", policy="background work pauses until the next request")
                await self._close_connections()
                await self.wait()
                log.info("gateway_active")

    def _find_remaining(self, idle_after_s: float) -> float:
        """Return the seconds until the process can become idle."""
        if self._in_progress:
            return idle_after_s
        return self._last_at + idle_after_s - time.monotonic()

    async def _close_connections(self) -> None:
        await asyncio.sleep(_FINISH_S)
        for close in self._closing:
            if not self._idle.is_set():
                return
            try:
                await close()
            except Exception:  # any error: the next request can use a connection that stays open
                log.exception("connections_not_closed")

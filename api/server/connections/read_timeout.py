"""A time-out for clients that send too slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Added to each limit, because a late event loop runs its timers before it reads data that arrived in time.
LAST_READ_S = 0.01


class ReadTimeout:
    """Calls `on_timeout` once a limit has passed and the data that arrived in time has been read."""

    def __init__(self, call_later: Callable[..., asyncio.TimerHandle], on_timeout: Callable[[], None]) -> None:
        self._call_later = call_later
        self._on_timeout = on_timeout
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        return self._timer is not None

    def start(self, seconds: float) -> None:
        self.cancel()
        self._timer = self._call_later(seconds, self._await_last_read)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _await_last_read(self) -> None:
        self._timer = self._call_later(LAST_READ_S, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._on_timeout()

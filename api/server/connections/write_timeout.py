"""A time-out for clients that do not read their response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PROGRESS_LIMIT_S = 10.0  # within which a client must read PROGRESS_BYTES, or everything that is left
PROGRESS_BYTES = 10 * 1024
CLOSE_LIMIT_S = 30.0  # after which a closing connection is aborted although no unsent bytes are visible: TLS hides them


class WriteTimeout:
    """Aborts the connection of a client that stops reading while bytes wait to be sent to it."""

    def __init__(self, transport: asyncio.Transport, call_later: Callable[..., asyncio.TimerHandle]) -> None:
        self._transport = transport
        self._call_later = call_later
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start or restart watching the unsent bytes. Without any, only wait for a closing connection to close."""
        self.cancel()
        if unsent := self._transport.get_write_buffer_size():
            self._timer = self._call_later(PROGRESS_LIMIT_S, self._check_progress, unsent)
        elif self._transport.is_closing():
            self._timer = self._call_later(CLOSE_LIMIT_S, self._transport.abort)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_progress(self, unsent_before: int) -> None:
        read = unsent_before - self._transport.get_write_buffer_size()
        if read >= min(unsent_before, PROGRESS_BYTES):
            self.start()
        else:
            self._transport.abort()

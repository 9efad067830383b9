"""How long a response may stay unread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from api.server.connections.write_timeout import WriteTimeout


class FakeTransport(asyncio.Transport):
    """Reports the given sizes of its write buffer one after another, and then repeats the last one."""

    def __init__(self, sizes: Sequence[int], *, closing: bool) -> None:
        super().__init__()
        self._sizes = list(sizes)
        self._closing = closing
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self.aborted = True


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Runs timers without waiting."""

    def __init__(self) -> None:
        self._timers: list[tuple[FakeTimer, Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, _delay: float, callback: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        timer = FakeTimer()
        self._timers.append((timer, callback, arguments))
        return cast(asyncio.TimerHandle, timer)

    def run_until_idle(self) -> None:
        while self._timers:
            timer, callback, arguments = self._timers.pop(0)
            if not timer.cancelled:
                callback(*arguments)


@pytest.mark.parametrize(
    ("sizes", "closing", "aborted"),
    [
        ([300_000], False, True),
        ([300_000, 295_000, 295_000], False, True),
        ([300_000, 280_000, 280_000, 150_000, 150_000, 8_000, 8_000, 0], False, False),
        ([8_000, 0], False, False),
        ([0], False, False),
        ([0], True, True),
    ],
    ids=["nothing", "a little", "steadily", "the rest", "all", "hidden by TLS"],
)
def test_only_stalled_readers_are_disconnected(sizes: Sequence[int], closing: bool, aborted: bool) -> None:
    """A connection is aborted if its client reads less than 10 KiB within the limit, or if its close takes too long."""
    transport, loop = FakeTransport(sizes, closing=closing), FakeLoop()
    WriteTimeout(transport, loop.call_later).start()
    loop.run_until_idle()
    assert transport.aborted is aborted


def test_cancelled_timeout_aborts_nothing() -> None:
    """After `cancel`, a connection stays open however much is left to read."""
    transport, loop = FakeTransport([300_000], closing=False), FakeLoop()
    timeout = WriteTimeout(transport, loop.call_later)
    timeout.start()
    timeout.cancel()
    loop.run_until_idle()
    assert not transport.aborted

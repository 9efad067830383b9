"""How long an answer may go unread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from api.server import connections
from api.server.connections import BoundedProtocol


class Unread:
    """A transport whose unsent bytes are told in turn; the last number stays."""

    def __init__(self, sizes: Sequence[int], *, closing: bool = False) -> None:
        self._sizes = list(sizes)
        self._closing = closing
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self.aborted = True


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
    ids=["nothing", "a little", "steadily", "the rest", "all", "TLS tells nothing"],
)
async def test_who_reads_on_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, sizes: Sequence[int], closing: bool, aborted: bool
) -> None:
    """A connection ends where less than 10 KiB are read in a while, and in any case some time after its close."""
    monkeypatch.setattr(connections, "UNREAD_LIMIT_S", 0.01)
    monkeypatch.setattr(connections, "LAST_LIMIT_S", 0.01)
    protocol = BoundedProtocol.__new__(BoundedProtocol)
    transport = Unread(sizes, closing=closing)
    protocol.transport, protocol.loop = transport, asyncio.get_running_loop()  # type: ignore[assignment]
    protocol._start_write_timeout()
    await asyncio.sleep(0.2)
    assert transport.aborted is aborted
    protocol._cancel_write_timeout()

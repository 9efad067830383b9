"""How responses are written to a connection."""

from __future__ import annotations

import asyncio

import pytest

from api.server.connections.transport import ResponseTransport


class Sent(asyncio.Transport):
    """Records what is written to the socket."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing, "uvloop raises an error"
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closing = True

    abort = close


def make_transport(sent: Sent) -> ResponseTransport:
    return ResponseTransport(sent, asyncio.get_running_loop(), lambda: False)


async def test_head_and_body_are_sent_together() -> None:
    """A head is sent with the body that follows at once; each response is written once."""
    transport = make_transport(sent := Sent())
    for number in (b"1", b"2"):
        transport.write(b"head " + number)
        transport.write(b" body " + number)
    assert sent.writes == [b"head 1 body 1", b"head 2 body 2"]
    await asyncio.sleep(0)
    assert len(sent.writes) == 2


async def test_a_head_without_a_body_is_sent() -> None:
    """A head is sent in the next iteration of the event loop if no body follows, as before a streamed body."""
    transport = make_transport(sent := Sent())
    transport.write(b"head")
    assert (sent.writes, transport.get_write_buffer_size()) == ([], len(b"head"))
    await asyncio.sleep(0)
    assert (sent.writes, transport.get_write_buffer_size()) == ([b"head"], 0)


async def test_a_connection_that_closes_sends_everything() -> None:
    """What was written before `close` is sent."""
    transport = make_transport(sent := Sent())
    transport.write(b"head")
    transport.close()
    assert (sent.writes, sent.closing) == ([b"head"], True)


@pytest.mark.parametrize("lose", ["abort", "lost"])
async def test_a_connection_that_is_lost_sends_nothing(lose: str) -> None:
    """What was written just before the connection is aborted or lost is discarded."""
    transport = make_transport(sent := Sent())
    transport.write(b"head")
    (transport if lose == "abort" else sent).abort()
    await asyncio.sleep(0)
    assert sent.writes == []

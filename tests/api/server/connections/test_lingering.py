"""A client that still sends while the gateway closes the connection receives the whole response."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from api.server.connections import transport
from api.server.connections.refusals import MAX_HEAD_BYTES
from tests.api.server.connections.loopback import connect_to
from tests.support.polling import PATIENCE_S, wait_until_async

LARGE = b"x" * 20_000_000  # more than the kernel's buffers of both sockets
RESET = struct.pack("ii", 1, 0)  # close without waiting, which resets the connection
UPLOAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(LARGE)
PIPELINED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nX-Large: "


async def respond_early(
    _scope: dict[str, Any], _receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]
) -> None:
    """Respond without reading the body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (UPLOAD + b"Connection: close\r\n\r\n" + LARGE, [401]),
        (UPLOAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n" + LARGE, [401]),
        (b"GET ?? HTTP\r\n\r\n" + LARGE, [400]),
        (PIPELINED + b"x" * 2 * MAX_HEAD_BYTES, [401, 431]),
        (PIPELINED + LARGE, [401, 431]),
    ],
    ids=["connection: close", "HTTP/1.0", "malformed", "long head", "endless head"],
)
async def test_a_client_that_sends_everything_first_receives_the_response(request_: bytes, statuses: list[int]) -> None:
    """The client can send all of its request although the gateway has responded, and then read the response."""
    async with connect_to(respond_early) as connection:
        connection.writer.write(request_)
        await connection.writer.drain()
        assert await connection.receive_statuses() == statuses
        assert connection.protocol.held_bytes <= 2 * MAX_HEAD_BYTES


async def test_a_client_that_never_closes_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps the connection open after the response loses it after a limited time."""
    monkeypatch.setattr(transport, "LINGER_S", 0.1)
    async with connect_to(respond_early) as connection:
        connection.writer.write(UPLOAD + b"Connection: close\r\n\r\n")
        assert await connection.receive_statuses() == [401]
        await asyncio.wait_for(connection.lost.wait(), PATIENCE_S)


async def test_a_connection_that_lingers_is_closed_when_memory_is_full() -> None:
    """When the gateway frees memory, it closes a connection that waits for the client to close it."""
    async with connect_to(respond_early) as connection:
        connection.writer.write(UPLOAD + b"Connection: close\r\n\r\n")
        assert await connection.receive_statuses() == [401]
        assert not connection.lost.is_set()
        connection.protocol.drop()
        await asyncio.sleep(0)
        assert connection.lost.is_set()


async def test_the_timers_of_a_reset_connection_end() -> None:
    """A connection that the client has reset is not kept in memory by a timer."""
    async with connect_to(respond_early) as connection:
        connection.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_until_async(lambda: connection.protocol.timeout_keep_alive_task is not None)
        connection.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.writer.transport.abort()
        await asyncio.wait_for(connection.lost.wait(), PATIENCE_S)
        assert connection.protocol.timeout_keep_alive_task is None


async def test_a_complete_request_does_not_linger() -> None:
    """A connection whose request is complete is closed at once."""
    async with connect_to(respond_early) as connection:
        connection.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert await connection.receive_statuses() == [401]
        assert connection.protocol.transport.get_extra_info("socket").fileno() == -1

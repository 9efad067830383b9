"""What happens to earlier and later requests of a connection when one of them is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.server.connections import protocol
from api.server.connections.refusals import MAX_HEAD_BYTES
from tests.api.server.connections.loopback import Connection, connect_to
from tests.support.polling import wait_until_async

HALF_A_HEAD = b"GET / HTTP/1.1\r\nX-Half: "


def make_request(path: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Application:
    """Reads the body of /read at once, and that of /wait once `go_on` is set; then responds once `go_on` is set.

    For /watch it then waits for the client's disconnect instead.
    """

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.started: list[str] = []
        self.read: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.hosts: list[bytes] = []

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]
    ) -> None:
        self.started.append(scope["path"])
        self.hosts += [value for name, value in scope["headers"] if name == b"host"]
        if scope["path"] == "/wait":
            await self.go_on.wait()
        message = await receive()
        self.messages.append(message)
        self.read.append(scope["path"])
        if scope["path"] == "/watch":
            self.messages.append(await receive())
            return
        await self.go_on.wait()
        if message["type"] == "http.request":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})


@asynccontextmanager
async def connected(application: Application) -> AsyncIterator[Connection]:
    async with connect_to(application) as connection:
        try:
            yield connection
        finally:
            application.go_on.set()


async def test_a_dropped_body_is_not_read_as_complete() -> None:
    """If a body is dropped before the application has read it, the application receives a disconnect."""
    application = Application()
    async with connected(application) as connection:
        connection.writer.write(make_request("/wait", b"x" * 1000) + HALF_A_HEAD)
        await wait_until_async(lambda: application.started == ["/wait"] and connection.protocol.held_bytes > 1000)
        connection.protocol.drop()
        application.go_on.set()
        assert await connection.receive_statuses() == [503]
        await wait_until_async(lambda: bool(application.messages))
        assert application.messages == [{"type": "http.disconnect"}]


async def test_requests_behind_a_dropped_one_do_not_start() -> None:
    """A request that the application has read gets its response, the first dropped one a 503, the others nothing."""
    application = Application()
    async with connected(application) as connection:
        connection.writer.write(make_request("/read") + make_request("/second", b"x" * 5000) + make_request("/third"))
        await wait_until_async(lambda: application.read == ["/read"] and connection.protocol.held_bytes >= 5000)
        connection.protocol.drop()
        assert connection.protocol.held_bytes < 5000
        application.go_on.set()
        assert await connection.receive_statuses() == [200, 503]
        assert application.started == ["/read"]


async def test_memory_that_others_need_is_taken_once() -> None:
    """A connection whose requests have all been read is not closed, and a dropped one is not dropped again."""
    application = Application()
    async with connected(application) as connection:
        connection.writer.write(make_request("/read"))
        await wait_until_async(lambda: application.read == ["/read"])
        connection.protocol.drop()
        connection.writer.write(HALF_A_HEAD)
        await wait_until_async(lambda: connection.protocol.expects_request)
        connection.protocol.drop()
        connection.protocol.drop()
        application.go_on.set()
        assert await connection.receive_statuses() == [200, 503]


@pytest.mark.parametrize("earlier", [1, 3])
async def test_requests_before_a_malformed_body_get_their_responses(earlier: int) -> None:
    """Pipelined requests get their responses, and the one behind them with a malformed body gets a 400."""
    application = Application()
    async with connected(application) as connection:
        malformed = b"POST /last HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
        connection.writer.write(make_request("/read", b"x") * earlier + malformed)
        await wait_until_async(lambda: application.read == ["/read"])
        application.go_on.set()
        assert await connection.receive_statuses() == [200] * earlier + [400]
        assert application.started == ["/read"] * earlier


async def test_a_long_malformed_body_is_refused_once() -> None:
    """More malformed bytes than a head may have refuse only the request that they belong to."""
    application = Application()
    async with connected(application) as connection:
        chunked = b"POST /last HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.writer.write(make_request("/read") + chunked)
        await wait_until_async(lambda: application.read == ["/read"] and len(connection.protocol.pipeline) == 1)
        connection.protocol.data_received(b"z" * 2 * MAX_HEAD_BYTES)  # in one read, which the kernel might split
        application.go_on.set()
        assert await connection.receive_statuses() == [200, 400]
        assert connection.refusals == ["bad_request"]


async def test_a_request_with_others_behind_it_learns_of_a_disconnect() -> None:
    """When the client closes the connection, the application receives a disconnect even if more requests wait."""
    application = Application()
    async with connected(application) as connection:
        connection.writer.write(make_request("/watch") + make_request("/second"))
        await wait_until_async(lambda: application.read == ["/watch"] and len(connection.protocol.pipeline) == 1)
        connection.writer.transport.abort()
        await wait_until_async(lambda: len(application.messages) == 2)
        assert application.messages[1] == {"type": "http.disconnect"}
        assert application.started == ["/watch"]


async def test_a_head_behind_another_request_counts() -> None:
    """The bytes of an unfinished head count even if they arrive in one read with an earlier request."""
    application = Application()
    async with connected(application) as connection:
        connection.protocol.data_received(make_request("/read") + HALF_A_HEAD + b"x" * 20_000)
        assert connection.protocol.held_bytes > 10_000
        application.go_on.set()


async def test_a_long_head_behind_another_request_is_refused() -> None:
    """A head that is too long is refused even if it arrives in one read with an earlier request."""
    application = Application()
    async with connected(application) as connection:
        connection.protocol.data_received(make_request("/read") + HALF_A_HEAD + b"x" * 2 * MAX_HEAD_BYTES)
        application.go_on.set()
        assert await connection.receive_statuses() == [200, 431]
        assert connection.refusals == ["head_too_large"]


async def test_a_connection_is_kept_after_an_early_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response before the end of the body does not shorten how long the connection waits for the next request."""
    application = Application()
    application.go_on.set()
    async with connected(application) as connection:
        whole = make_request("/read", b"xy")
        connection.writer.write(whole[:-1])
        await wait_until_async(lambda: bool(application.read) and connection.protocol.cycle.response_complete)
        monkeypatch.setattr(protocol, "HEAD_LIMIT_S", 0.05)
        connection.writer.write(whole[-1:])
        await asyncio.sleep(0.5)
        connection.writer.write(make_request("/read")[:-4] + b"\r\nConnection: close\r\n\r\n")
        assert await connection.receive_statuses() == [200, 200]


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://evil.example/a", b"evil.example"),
        ("http://evil.example:80?a=b://c/", b"evil.example:80"),
        ("/a?b=http://evil.example/", b"localhost"),
    ],
)
async def test_the_host_of_the_target_replaces_the_header(target: str, host: bytes) -> None:
    """The application sees the host of a target that is a URI, not that of `Host`, which may differ."""
    application = Application()
    async with connected(application) as connection:
        connection.writer.write(make_request(target))
        await wait_until_async(lambda: bool(application.read))
        assert application.hosts == [host]


@pytest.mark.parametrize("count", [0, 2])
async def test_the_host_of_the_target_hides_no_bad_header(count: int) -> None:
    """A missing or repeated `Host` stays missing or repeated, whatever the target is."""
    application = Application()
    async with connected(application) as connection:
        hosts = b"Host: localhost\r\n" * count
        connection.writer.write(b"GET http://evil.example/ HTTP/1.1\r\n" + hosts + b"\r\n")
        await wait_until_async(lambda: bool(application.read))
        assert len(application.hosts) == count

"""Connections whose time limit passes while the event loop is blocked."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest
import uvicorn

from api.server.connections import protocol
from api.server.connections.memory import ConnectionMemory
from api.server.connections.protocol import BoundedProtocol
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

LIMIT_S = 77  # of connections whose limit must not pass before the loop is blocked
LATE_S = 0.1


class HeldTimer:
    """A timer that starts only when `start` is called."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self._loop, self._callback = loop, callback
        self._started: asyncio.TimerHandle | None = None
        self._cancelled = False

    def start(self, delay: float) -> None:
        if not self._cancelled:
            self._started = self._loop.call_later(delay, self._callback)

    def cancel(self) -> None:
        self._cancelled = True
        if self._started is not None:
            self._started.cancel()


class HoldingLoop:
    """The event loop of a connection, except that timers of LIMIT_S are added to `held` and do not start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, held: list[HeldTimer]) -> None:
        self._loop, self._held = loop, held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Any:
        if delay != LIMIT_S:
            return self._loop.call_later(delay, callback, *arguments)
        self._held.append(HeldTimer(self._loop, partial(callback, *arguments)))
        return self._held[-1]


class BlockingProtocol(BoundedProtocol):
    """The gateway's protocol; a request for /block blocks the event loop until LIMIT_S has passed for all connections.

    That happens after `go_on` is set, however long a busy machine takes to send the requests before.
    """

    blocked: threading.Event
    go_on: threading.Event
    held: list[HeldTimer]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.loop = cast(Any, HoldingLoop(self.loop, self.held))

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /block "):
            self.blocked.set()
            assert self.go_on.wait(PATIENCE_S)
            for timer in self.held:
                timer.start(LATE_S / 2)
            time.sleep(LATE_S)
        super().data_received(data)


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@contextmanager
def serving(limit_s: int) -> Iterator[int]:
    """Serve the app with the gateway's protocol and event loop; yields the port."""
    port = free_port()
    BlockingProtocol.blocked, BlockingProtocol.go_on, BlockingProtocol.held = threading.Event(), threading.Event(), []
    make_protocol = partial(
        BlockingProtocol, memory=ConnectionMemory(), on_closed=lambda: None, on_refused=lambda _: None
    )
    config = uvicorn.Config(
        app,
        port=port,
        loop="uvloop",
        http=cast(Any, make_protocol),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=limit_s,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield port
    finally:
        BlockingProtocol.go_on.set()
        server.should_exit = True
        thread.join()


def connect(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    return connection


def get(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.status


def test_a_request_that_waits_for_a_late_loop_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that arrives while the loop is blocked is served, even if its connection's limit passes meanwhile."""
    monkeypatch.setattr(protocol, "HEAD_LIMIT_S", LIMIT_S)
    with serving(LIMIT_S) as port:
        used, new, blocking = connect(port), connect(port), connect(port)
        assert get(used) == 200
        assert get(blocking) == 200
        blocking.request("GET", "/block")
        assert BlockingProtocol.blocked.wait(PATIENCE_S)
        for connection in (used, new):
            connection.request("GET", "/")
        BlockingProtocol.go_on.set()
        responses = [connection.getresponse() for connection in (used, new, blocking)]
        assert [response.status for response in responses] == [200, 200, 200]
        for connection in (used, new, blocking):
            connection.close()


def test_an_unused_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing arrives is closed after the limit, before the first request and after one."""
    with serving(limit_s=1) as port:
        used = connect(port)
        assert get(used) == 200
        monkeypatch.setattr(protocol, "HEAD_LIMIT_S", 1)  # not earlier: it also limits the wait for a first request
        new = connect(port)
        for connection in (used, new):
            assert connection.sock is not None
            assert connection.sock.recv(1) == b""
            connection.close()

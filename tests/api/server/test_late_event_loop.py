"""Connections whose time limit passes while the event loop is blocked."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest
import uvicorn

from api.server import connections
from api.server.connection_limiter import ConnectionLimiter
from api.server.connection_memory import ConnectionMemory
from api.server.connections import BoundedProtocol
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

LIMIT_S = 3  # enough for a slow machine to send the requests before the loop is blocked
LATE_S = 3.2


class BlockingProtocol(BoundedProtocol):
    """The gateway's protocol; a request for /block blocks the event loop until LATE_S after `go_on` is set."""

    blocked: threading.Event
    go_on: threading.Event

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /block "):
            self.blocked.set()
            assert self.go_on.wait(PATIENCE_S)
            time.sleep(LATE_S)
        super().data_received(data)


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@contextmanager
def serving(limit_s: int) -> Iterator[int]:
    """Serve the app with the gateway's protocol and event loop; yields the port."""
    port = free_port()
    BlockingProtocol.blocked, BlockingProtocol.go_on = threading.Event(), threading.Event()
    protocol = partial(BlockingProtocol, limiter=ConnectionLimiter(behind_proxies=False), memory=ConnectionMemory())
    config = uvicorn.Config(
        app,
        port=port,
        loop="uvloop",
        http=cast(Any, protocol),
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
    monkeypatch.setattr(connections, "HEAD_LIMIT_S", LIMIT_S)
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
    monkeypatch.setattr(connections, "HEAD_LIMIT_S", 1)
    with serving(limit_s=1) as port:
        used = connect(port)
        assert get(used) == 200
        new = connect(port)
        for connection in (used, new):
            assert connection.sock is not None
            assert connection.sock.recv(1) == b""
            connection.close()

"""Threat T37: a gateway whose log nobody reads keeps serving."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path

import pytest

from monitoring.logs.line_queue import QueueLimits
from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.polling import wait_until

# Draining, closing and waiting for the reader take three seconds at most; a gateway that hangs is killed after ten.
STOPPED_WITHIN_S = 9.0


class BlockedReader:
    """A small pipe that nobody reads until `read_until`."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl(self.write_end, F_SETPIPE_SZ, 4096)

    def read_until(self, event: str) -> list[dict[str, object]]:
        """Read lines until one has the event, and return all of them."""
        received = b""
        while f'"event.name": "{event}"'.encode() not in received or not received.endswith(b"\n"):
            received += os.read(self.read_end, 65536)
        return [json.loads(line) for line in received.splitlines() if line.startswith(b"{")]


@pytest.fixture
def reader() -> Iterator[BlockedReader]:
    reader = BlockedReader()
    yield reader
    os.close(reader.read_end)
    os.close(reader.write_end)


@pytest.fixture
def start(tmp_path: Path, reader: BlockedReader) -> Iterator[Callable[..., Gateway]]:
    """Start a gateway that writes to the blocked reader."""
    gateways: list[Gateway] = []

    def start(**changes: str) -> Gateway:
        gateway = make_gateway(tmp_path, MODEL__URL="stub://", DRAIN_SECONDS="0", **changes)
        gateways.append(gateway)
        gateway.start(reader.write_end)
        return gateway

    yield start
    for gateway in gateways:
        if gateway.is_running:
            gateway.kill()


def send_logged_requests(gateway: Gateway, count: int) -> None:
    """Send requests that are logged with a line of at least 200 bytes each."""
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_S)) as connection:
        for _ in range(count):
            # A request that succeeds, because only some rejected ones are logged.
            connection.request("GET", "/.well-known/jwks.json", headers={"X-Request-ID": "x" * 64})
            assert connection.getresponse().read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_blocked_reader_stops_neither_requests_nor_the_shutdown(start: Callable[..., Gateway], workers: str) -> None:
    """T37: with a full pipe as output, requests are served and SIGTERM ends every process in time with status 0."""
    gateway = start(WEB_CONCURRENCY=workers)
    send_logged_requests(gateway, 200)
    assert gateway.get("/livez").is_success
    assert gateway.client().get("/v1/me").is_success
    started = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - started < STOPPED_WITHIN_S


def test_dropped_lines_are_counted_and_reported(start: Callable[..., Gateway], reader: BlockedReader) -> None:
    """T37: lines beyond the queue are dropped and counted, and a reader that resumes gets their number."""
    gateway = start()
    dropped = 'atalaya_log_lines_dropped_total{output="standard"}'
    for _ in range(QueueLimits().lines // 500):
        send_logged_requests(gateway, 500)
        if gateway.metric(dropped):
            break
    lines = reader.read_until("log_lines_dropped")
    (reported,) = [line["lines"] for line in lines if line.get("event.name") == "log_lines_dropped"]
    # Not before: the log line of each request for the metrics was dropped, too.
    assert gateway.metric(dropped) == reported
    send_logged_requests(gateway, 1)
    wait_until(lambda: "/.well-known/jwks.json" in {line["http.route"] for line in reader.read_until("request")})
    assert gateway.metric(dropped) == reported

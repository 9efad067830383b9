"""Measure how soon a gateway serves after its process starts, and how much memory it uses then."""

from __future__ import annotations

import socket
import statistics
import time
from typing import NamedTuple

from bench.load import build_request
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import PATIENCE_S

_RETRY_S = 0.005
_READINESS = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Start(NamedTuple):
    """Seconds after the process started, and the resident memory of the process and its workers when it was ready."""

    ready_s: float
    first_prediction_s: float
    rest_mb: float


def measure_starts(gateway: Gateway, starts: int) -> Start:
    """Restart the gateway twice `starts` times, and return the medians. Raises RuntimeError.

    After one start, the gateway is at rest. After the other, a client sends a prediction as soon as the port is bound,
    like a proxy that wakes a sleeping gateway.
    """
    prediction = build_request(gateway.token(), FOREST)
    measured = []
    for _ in range(starts):
        ready_s = _measure_start(gateway, _READINESS)
        rest_mb = gateway.resident_bytes() / 1e6
        measured.append(Start(ready_s, _measure_start(gateway, prediction), rest_mb))
    return Start(*(statistics.median(values) for values in zip(*measured, strict=True)))


def _measure_start(gateway: Gateway, request: bytes) -> float:
    """Restart the gateway, and return the seconds until it responds to the request with 200. Raises RuntimeError."""
    gateway.stop()
    began = time.perf_counter()
    gateway.launch()
    while (status := _send(gateway.port, request)) == 503 and time.perf_counter() - began < PATIENCE_S:
        time.sleep(_RETRY_S)
    if status != 200:
        raise RuntimeError(f"The first request failed with the status {status}: {gateway.log()}")
    return time.perf_counter() - began


def _send(port: int, request: bytes) -> int:
    """Send the request once the port is bound, and return the status of the response, 0 if there is none."""
    with _connect(port) as connection:
        connection.sendall(request)
        status = connection.recv(4096).partition(b"\r\n")[0].split()
    return int(status[1]) if status else 0


def _connect(port: int) -> socket.socket:
    """Raises OSError if nothing has listened on the port for two minutes."""
    end_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > end_at:
                raise
            time.sleep(_RETRY_S)

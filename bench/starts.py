"""Measure how soon a gateway serves after its process starts, and how much memory it uses then."""

from __future__ import annotations

import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench.load import build_request
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import PATIENCE_S

_RETRY_S = 0.005


class Start(NamedTuple):
    """Seconds after the process started, and the resident memory of the process and its workers when it was ready."""

    ready_s: float
    first_prediction_s: float
    rest_mb: float


def measure_starts(gateway: Gateway, starts: int) -> Start:
    """Restart the gateway `starts` times, and return the medians. Raises RuntimeError.

    A client sends a prediction as soon as the port is bound, like a proxy that wakes a sleeping gateway.
    """
    request = build_request(gateway.token(), FOREST)
    measured = []
    for _ in range(starts):
        gateway.stop()
        with ThreadPoolExecutor(1) as client:
            began = time.perf_counter()
            responded = client.submit(_predict, gateway.port, request)
            gateway.start()
            first_prediction_s = responded.result() - began
        measured.append(Start(gateway.ready_s, first_prediction_s, gateway.resident_bytes() / 1e6))
    return Start(*(statistics.median(values) for values in zip(*measured, strict=True)))


def _predict(port: int, request: bytes) -> float:
    """Send the request once the port is bound, and return the time of the response. Raises RuntimeError."""
    with _connect(port) as connection:
        connection.sendall(request)
        status = connection.recv(4096).partition(b"\r\n")[0].decode()
    if status.split()[1:2] != ["200"]:
        raise RuntimeError(f"The first prediction failed: {status or 'the gateway closed the connection'}.")
    return time.perf_counter()


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

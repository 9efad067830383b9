"""The private port of the metrics."""

from __future__ import annotations

import socket
import urllib.request

from prometheus_client import CollectorRegistry

from monitoring.metrics.exposition import serve_metrics
from tests.support.polling import PATIENCE_S


def test_idle_connections_are_closed() -> None:
    """An idle connection is closed after the timeout."""
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        serve_metrics(listener, CollectorRegistry(), idle_timeout_s=0.2),
        socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as idle,
    ):
        assert idle.recv(1) == b""


def test_an_idle_connection_delays_no_other() -> None:
    """While a connection is idle, a request on another one is served."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    with (
        serve_metrics(listener, CollectorRegistry(), idle_timeout_s=PATIENCE_S),
        socket.create_connection(listener.getsockname()),
        urllib.request.urlopen(url, timeout=PATIENCE_S / 2) as response,
    ):
        assert response.status == 200

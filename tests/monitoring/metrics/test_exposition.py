"""The private port of the metrics."""

from __future__ import annotations

import socket
import urllib.request

from prometheus_client import CollectorRegistry

from monitoring.metrics.exposition import serve_metrics


def test_idle_connections_are_closed() -> None:
    """An idle connection is closed after the timeout and does not delay other connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with (
        serve_metrics(listener, CollectorRegistry(), idle_timeout_s=0.2),
        socket.create_connection(address, timeout=10) as idle,
    ):
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics") as response:
            assert response.status == 200
        assert idle.recv(1) == b""

"""The private port of the metrics."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from monitoring import exposition


def test_an_idle_connection_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing is sent away, and others are answered meanwhile."""
    monkeypatch.setattr(exposition._Quiet, "timeout", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with (
        exposition.metrics_port(listener, CollectorRegistry()),
        socket.create_connection(address, timeout=10) as idle,
    ):
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics") as answer:
            assert answer.status == 200
        assert idle.recv(1) == b""

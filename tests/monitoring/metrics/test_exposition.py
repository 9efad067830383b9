"""The private port of the metrics."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from api.routes.metrics import encode_metrics
from monitoring.metrics.exposition import serve_metrics
from tests.support.polling import PATIENCE_S

TEXT, OPENMETRICS = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"


def encode(_: str) -> tuple[bytes, str]:
    return b"", "text/plain"


@pytest.fixture
def url() -> Iterator[str]:
    registry = CollectorRegistry()
    Gauge("answer", "An example", registry=registry).set(42)
    listener = socket.create_server(("127.0.0.1", 0))
    with serve_metrics(listener, partial(encode_metrics, registry)):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"


def test_idle_connections_are_closed() -> None:
    """An idle connection is closed after the timeout."""
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        serve_metrics(listener, encode, idle_timeout_s=0.2),
        socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as idle,
    ):
        assert idle.recv(1) == b""


def test_an_idle_connection_delays_no_other() -> None:
    """While a connection is idle, a request on another one is served."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    with (
        serve_metrics(listener, encode, idle_timeout_s=PATIENCE_S),
        socket.create_connection(listener.getsockname()),
    ):
        assert httpx.get(url, timeout=PATIENCE_S / 2).status_code == 200


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics/", "/predict-land-use"])
def test_only_metrics_are_served(url: str, path: str) -> None:
    """Any path but /metrics is not found, so that a health check of the wrong port fails."""
    response = httpx.get(httpx.URL(url).join(path))
    assert (response.status_code, response.text) == (404, "This port serves only /metrics.\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_metrics_are_only_read(url: str, method: str) -> None:
    """A method other than GET and HEAD is rejected."""
    response = httpx.request(method, url)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text;q=0, text/plain", TEXT),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.8", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", OPENMETRICS),
    ],
)
def test_the_preferred_format_is_served(url: str, accept: str, content_type: str) -> None:
    """The qualities in Accept decide between OpenMetrics and the text format, and caches keep the formats apart."""
    response = httpx.get(url, headers={"Accept": accept})
    assert response.headers["content-type"] == f"{content_type}; charset=utf-8"
    assert response.headers["vary"] == "Accept, Accept-Encoding"
    assert "answer 42.0\n" in response.text
    assert response.text.endswith("# EOF\n") is (content_type == OPENMETRICS)


def test_metrics_are_compressed_on_request(url: str) -> None:
    """A client that accepts gzip gets the same metrics compressed, and HEAD announces the same length."""
    with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as response:
        body = b"".join(response.iter_raw())
    plain = httpx.get(url, headers={"Accept-Encoding": "identity"})
    assert (response.headers["content-encoding"], gzip.decompress(body)) == ("gzip", plain.content)
    head = httpx.head(url, headers={"Accept-Encoding": "identity"})
    assert (head.content, head.headers["content-length"]) == (b"", plain.headers["content-length"])

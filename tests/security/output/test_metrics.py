"""T60: callers can neither flood the metrics with series nor read secrets in them."""

from __future__ import annotations

import re
import secrets
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from monitoring.metrics import Metrics
from monitoring.metrics.bounded import NameLimit
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.wire import Wire

MAX_SERIES = 3000
"""Of a gateway with one model, whatever callers send; docs/generated/metrics.md names this number."""
MAX_GROWTH = 200
"""For requests without a route: two methods, two statuses, and the labels of 13 buckets, a count and a sum each."""


def read_series(gateway: Gateway) -> list[str]:
    text = httpx.get(gateway.metrics_url, timeout=TIMEOUT_S).text
    return [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]


def test_random_requests_add_few_series(gateway: Gateway, wire: Wire) -> None:
    """T60: invented methods, paths, queries, hosts, schemes and request ids add a bounded number of series."""
    before = read_series(gateway)
    words = [secrets.token_hex(8) for _ in range(200)]

    def send(word: str) -> None:
        host, scheme = f"Host: {word}.example.org", f"X-Forwarded-Proto: {word}"
        for request in (
            wire.head(word.upper(), f"/{word}?{word}={word}", scheme, f"X-Request-ID: {word}"),
            wire.head("GET", f"/v1/predictions/{word}", f"traceparent: {word}"),
            f"GET /{word} HTTP/1.1\r\n{host}\r\n\r\n".encode(),
        ):
            with wire.connect() as connection:
                connection.sendall(request)
                assert connection.recv(12).startswith(b"HTTP/1.1 4")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, words))
    after = read_series(gateway)
    assert len(after) - len(before) <= MAX_GROWTH
    assert len(after) <= MAX_SERIES
    assert not [series for series in after if any(word in series for word in words)]


def test_callers_and_models_are_bounded() -> None:
    """T60: with ten thousand callers and models, the first ones have series of their own, and all others share one."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.callers = NameLimit(20)
    for number in range(10_000):
        metrics.count_usage(f"user:{number}", 1)
        metrics.find_predictions(f"model-{number}", "forest").inc()
    text = generate_latest(registry).decode()
    for name in ("usage_predictions", "usage_megapixels", "predictions"):
        assert len(re.findall(rf"^atalaya_{name}_total{{", text, re.MULTILINE)) == 21
    assert 'atalaya_usage_predictions_total{caller="other"} 9980.0' in text


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_metrics_contain_no_secrets(gateway: Gateway, accept: str) -> None:
    """T60: neither passwords nor tokens nor the names of users appear in the metrics, in either format."""
    token = gateway.token()
    gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    gateway.log_in("ana", "a wrong passphrase")
    text = httpx.get(gateway.metrics_url, headers={"Accept": accept}, timeout=TIMEOUT_S).text
    planted = [PASSWORD, "a wrong passphrase", token, *token.split("."), gateway.environment["LEDGER__SIGNING_KEY"]]
    assert [secret for secret in planted if secret in text] == []
    assert not re.search(r'"(user:)?(ana|olga)"', text)

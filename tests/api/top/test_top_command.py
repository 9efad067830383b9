"""`atalaya top` with a running gateway, and with the alerts of Prometheus and Alertmanager."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pexpect
import pytest

from tests.support.callers import running_threads
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import ATALAYA, FOREST
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.servers.running import running

ALERT = {"labels": {"alertname": "AtalayaDown", "severity": "critical"}, "annotations": {"summary": "It is down."}}
PROMETHEUS = {
    "status": "success",
    "data": {
        "alerts": [
            {**ALERT, "state": "firing", "activeAt": "2026-11-26T12:00:00Z"},
            {**ALERT, "state": "pending", "activeAt": "2026-11-26T12:00:00Z"},
        ]
    },
}
ALERTMANAGER = [
    {**ALERT, "status": {"state": "active"}, "startsAt": "2026-11-26T12:00:00Z"},
    {**ALERT, "status": {"state": "suppressed"}, "startsAt": "2026-11-26T12:00:00Z"},
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("top"), MODEL__URL="stub://") as gateway:
        yield gateway


@contextmanager
def serving(path: str, document: Any) -> Iterator[str]:
    """Serve one JSON document; yields the URL of the server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def predicting(gateway: Gateway) -> Iterator[None]:
    """Alternately send predictions and requests that are rejected, until the context ends."""
    client = gateway.client()

    def predict(ended: threading.Event) -> None:
        while not ended.is_set():
            client.post("/v1/predictions", files={"file": FOREST.read_bytes()})
            client.get("/nowhere")

    with running_threads(predict, 1):
        yield


def test_one_reading_as_json(gateway: Gateway) -> None:
    """`top --json` reads METRICS_PORT without a credential and prints the rates of one interval as a document."""
    summaries: list[Any] = []

    def has_read_requests() -> bool:
        """Return whether the next interval has a prediction and a rejected request; a busy machine needs several."""
        done = gateway.run("top", "--json", "--interval", "1")
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads(done.stdout))
        rates = summaries[-1]["requests"]["by_status_per_s"]
        is_inferred = summaries[-1]["predictions"]["stage_mean_s"]["infer"] is not None
        return is_inferred and all(rates.get(statuses) for statuses in ("2xx", "4xx"))

    with predicting(gateway):
        wait_until(has_read_requests, message=lambda: summaries[-1])
    summary = summaries[-1]
    assert summary["at"].endswith("Z")
    assert summary["gateway"] == gateway.metrics_url.removesuffix("/metrics")
    assert summary["requests"]["per_s"] == pytest.approx(sum(summary["requests"]["by_status_per_s"].values()))
    assert 0 < summary["requests"]["latency_s"]["p50"] <= summary["requests"]["latency_s"]["p99"]
    assert sum(summary["predictions"]["by_class_per_s"].values()) == pytest.approx(summary["predictions"]["per_s"])
    assert summary["memory"]["limit_bytes"] > summary["memory"]["used_bytes"] > 0
    assert summary["records"]["ledger"] == "writing"
    assert summary["alerts"] is None


@pytest.mark.parametrize(("path", "document"), [("/api/v1/alerts", PROMETHEUS), ("/api/v2/alerts", ALERTMANAGER)])
def test_firing_alerts_are_shown(gateway: Gateway, path: str, document: Any) -> None:
    """`top --alerts-url` shows the firing alerts of Prometheus or Alertmanager, and no pending or silenced ones."""
    with serving(path, document) as url:
        done = gateway.run("top", "--once", "--interval", "0.2", "--alerts-url", url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("critical  AtalayaDown: It is down.") == 1


def test_lines_fit_a_terminal_of_80_columns(gateway: Gateway) -> None:
    """No line of `top` is longer than 80 columns."""
    with predicting(gateway):
        done = gateway.run("top", "--once", "--interval", "0.5")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "Requests" in done.stdout


def test_a_remote_gateway_needs_a_credential(gateway: Gateway) -> None:
    """With --url, `top` reads /metrics with a token that has the scope metrics:read, and says so if that is missing."""
    refused = gateway.run("top", "--once", "--url", gateway.base_url, "--token", gateway.token("ana"))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: {gateway.base_url} rejected the credential. Use one with the scope metrics:read.\n"
    )
    anonymous = gateway.run("top", "--once", "--url", gateway.base_url)
    assert anonymous.returncode == 1
    assert anonymous.stderr == (
        f"error: {gateway.base_url} shows its metrics only to authenticated callers. Add --key or --token with a "
        "credential that has the scope metrics:read, or set METRICS_PORT on this machine.\n"
    )
    token = gateway.token("olga")
    done = gateway.run("top", "--once", "--interval", "0.2", "--url", gateway.base_url, "--token", token)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(gateway.base_url)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 1, "Standard output is not a terminal. Use --once or --json."),
        (["--once", "--url", "gateway"], 2, "has no scheme. Write http://gateway"),
        (["--once", "--url", "http://127.0.0.1:9"], 1, "cannot be reached: connection refused."),
    ],
)
def test_mistakes_are_explained(gateway: Gateway, arguments: list[str], status: int, text: str) -> None:
    """A mistake in the use of `top` is one line that explains it."""
    done = gateway.run("top", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    assert text in done.stderr


def test_a_server_without_alerts_is_named(gateway: Gateway) -> None:
    """A URL for alerts that belongs to another kind of server is an error that says so."""
    with serving("/", {}) as url:
        done = gateway.run("top", "--once", "--interval", "0.2", "--alerts-url", url)
    assert done.returncode == 1
    assert f"{url} is neither a Prometheus nor an Alertmanager" in done.stderr


def test_live_view_ends_with_ctrl_c(gateway: Gateway) -> None:
    """On a terminal `top` draws until Ctrl-C, which ends it with status 0."""
    terminal = pexpect.spawn(
        str(ATALAYA),
        ["top", "--interval", "0.2"],
        cwd=str(gateway.folder),
        env={**gateway.environment, "TERM": "xterm"},
        encoding="utf-8",
        timeout=int(PATIENCE_S),
        dimensions=(24, 80),
    )
    terminal.expect_exact("Predictions")
    terminal.expect_exact("Alerts")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import pytest

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
PATIENCE_S = 45
# The job's name is that of deploy/prometheus/prometheus.yml; $__rate_interval is what Grafana would fill in.
SCRAPING = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: atalaya
    metrics_path: {path}
    static_configs: [targets: ["{target}"]]
"""
RATE_INTERVAL = "10s"


class Gateway(Protocol):
    metrics_url: str

    def traffic(self) -> None: ...


@pytest.fixture
def prometheus(gateway: Gateway, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes the gateway every second."""
    program = shutil.which("prometheus")
    if program is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("Prometheus is not installed: apt-get install prometheus")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    metrics = urlsplit(gateway.metrics_url)
    (tmp_path / "prometheus.yml").write_text(SCRAPING.format(path=metrics.path, target=metrics.netloc))
    command = [
        program,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        try:
            yield client
        finally:
            process.terminate()


def expressions() -> set[str]:
    """Every query of every panel, as Grafana would send it."""
    return {
        target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        for path in DASHBOARDS.glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    }


def has_data(prometheus: httpx.Client, expression: str) -> bool:
    """Whether the query answers with a number; NaN, as of a quantile of nothing, is drawn as a gap."""
    try:
        answer: Any = prometheus.get("/api/v1/query", params={"query": expression}).json()
    except httpx.TransportError:  # not listening yet
        return False
    assert answer["status"] == "success" or answer["errorType"] == "unavailable", answer
    return any(math.isfinite(float(series["value"][1])) for series in answer.get("data", {}).get("result", []))


def test_every_panel_shows_data(gateway: Gateway, prometheus: httpx.Client) -> None:
    """On a gateway under traffic every query of both dashboards returns data."""
    empty = expressions()
    assert empty
    deadline = time.monotonic() + PATIENCE_S
    while empty and time.monotonic() < deadline:
        gateway.traffic()
        empty = {expression for expression in empty if not has_data(prometheus, expression)}
        time.sleep(0.25)  # between polls: Prometheus scrapes once a second
    assert not empty, "Queries without data:\n" + "\n".join(sorted(empty))

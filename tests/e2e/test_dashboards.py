"""Every panel of the Grafana dashboards shows data of a real gateway that a real Prometheus scrapes."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.requirements import find_program

DASHBOARDS = ROOT / "grafana" / "dashboards"
PATIENCE_S = 180
# The job has the name in deploy/prometheus/prometheus.yml; Grafana replaces $__rate_interval.
SCRAPING = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: atalaya
    metrics_path: {path}
    static_configs: [targets: ["{target}"]]
"""
RATE_INTERVAL = "10s"


@pytest.fixture
def prometheus(gateway: Gateway, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes the gateway every second."""
    program, port = find_program("prometheus"), free_port()
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


def read_expressions() -> set[str]:
    """Every query of every panel, as Grafana would send it."""
    return {
        target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        for path in DASHBOARDS.glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    }


def has_data(prometheus: httpx.Client, expression: str) -> bool:
    """Whether the query returns a number. Grafana draws NaN, such as a quantile of no samples, as a gap."""
    try:
        result: Any = prometheus.get("/api/v1/query", params={"query": expression}).json()
    except httpx.TransportError:  # not listening yet, or busy
        return False
    assert result["status"] == "success" or result["errorType"] == "unavailable", result
    return any(math.isfinite(float(series["value"][1])) for series in result.get("data", {}).get("result", []))


def test_every_panel_shows_data(gateway: Gateway, prometheus: httpx.Client) -> None:
    """While the gateway has traffic, every query of both dashboards returns data."""
    empty = read_expressions()
    assert empty
    deadline = time.monotonic() + PATIENCE_S
    while empty and time.monotonic() < deadline:
        gateway.send_every_kind_of_request()
        empty = {expression for expression in empty if not has_data(prometheus, expression)}
        time.sleep(0.25)  # between polls: Prometheus scrapes once a second
    assert not empty, "Queries without data:\n" + "\n".join(sorted(empty))

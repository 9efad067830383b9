"""A Prometheus that scrapes a gateway and evaluates the rules that the project deploys."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.grafana.boards import Window
from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.requirements import find_program

DEPLOYED = ROOT / "deploy" / "prometheus"
# The job has the name in deploy/prometheus/prometheus.yml.
_CONFIGURATION = """
global: {{scrape_interval: {interval}s, evaluation_interval: 1s}}
rule_files: ["{folder}/rules/*.yml"]
scrape_configs:
  - job_name: atalaya
    metrics_path: {path}
    static_configs: [targets: ["{target}"]]
"""


@dataclass(frozen=True)
class Series:
    """One series of a result. Samples are pairs of time and value."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    @property
    def last(self) -> float:
        return self.samples[-1][1]


@dataclass(frozen=True)
class Prometheus:
    """A client of a Prometheus server."""

    client: httpx.Client

    def query(self, expression: str, time: float | None = None) -> list[Series]:
        """The result at one time (default: now) without NaN. Raises AssertionError if Prometheus rejects the query."""
        at = {} if time is None else {"time": str(time)}
        return self._ask("/api/v1/query", {"query": expression, **at})

    def query_range(self, expression: str, window: Window) -> list[Series]:
        """The result over a time range. Raises AssertionError if Prometheus rejects the query."""
        bounds = {"start": str(window.start), "end": str(window.end), "step": str(window.step)}
        return self._ask("/api/v1/query_range", {"query": expression, **bounds})

    def is_ready(self) -> bool:
        try:
            return self.client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def _ask(self, path: str, parameters: dict[str, str]) -> list[Series]:
        response: dict[str, Any] = self.client.post(path, data=parameters).json()
        if response["status"] != "success":
            raise AssertionError(f"{response['error']}: {parameters['query']}")
        found = (_read_series(series) for series in response["data"]["result"])
        return [series for series in found if series.samples]


def _read_series(series: dict[str, Any]) -> Series:
    pairs = series.get("values") or [series["value"]]
    samples = [(float(time), float(value)) for time, value in pairs]
    return Series(series["metric"], [(time, value) for time, value in samples if math.isfinite(value)])


@contextmanager
def running_prometheus(folder: Path, metrics_url: str, scrape_interval_s: int = 1) -> Iterator[Prometheus]:
    """Run a server with its data in `folder`. Without Prometheus the test is skipped, or fails when CI=true."""
    program, port, metrics = find_program("prometheus"), free_port(), urlsplit(metrics_url)
    (folder / "rules").mkdir(parents=True)
    for path in DEPLOYED.glob("**/*.yml"):
        if "groups:" in path.read_text():
            # Remove the groups' own intervals, so that all rules are evaluated every second.
            rules = re.sub(r"^    interval: .*\n", "", path.read_text(), flags=re.MULTILINE)
            (folder / "rules" / path.name).write_text(rules)
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, path=metrics.path, target=metrics.netloc, interval=scrape_interval_s)
    )
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        prometheus = Prometheus(client)
        try:
            wait_until(prometheus.is_ready, message=(folder / "prometheus.log").read_text)
            yield prometheus
        finally:
            process.terminate()

"""The committed dashboards, and their queries as Grafana sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.paths import ROOT

FOLDER = ROOT / "grafana" / "dashboards"
NAMES = ("overview", "latency", "resources", "model", "security", "usage")
# What Grafana fills in while each variable has the value "All"; `job` has the value of the scrape configuration.
_VARIABLES = {"job": "atalaya", "instance": ".+", "model": ".+"}


@dataclass(frozen=True)
class Window:
    """The time range that a dashboard shows, in seconds since the epoch, and the resolution of its queries."""

    start: float
    end: float
    step: float
    rate_interval_s: int = 10

    def fill_in(self, expression: str) -> str:
        """The expression with the variables of Grafana replaced."""
        values = {
            "__rate_interval": f"{self.rate_interval_s}s",
            "__range": f"{max(1, round(self.end - self.start))}s",
            **_VARIABLES,
        }
        for name, value in values.items():
            expression = expression.replace(f"${name}", value)
        return expression


def read_dashboard(name: str) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return dashboard


def read_panels(name: str) -> list[dict[str, Any]]:
    """The panels of a dashboard that show data: all but the titles of rows."""
    return [panel for panel in read_dashboard(name)["panels"] if panel["type"] != "row"]


def all_panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel with the name of its dashboard."""
    for name in NAMES:
        for panel in read_panels(name):
            yield name, panel


def all_expressions() -> Iterator[str]:
    for _, panel in all_panels():
        yield from (target["expr"] for target in panel["targets"])

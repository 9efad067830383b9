"""The usage dashboard: who uses how much."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from panels import build_dashboard, graph
from promql import or_zero, query, rate


def build_usage() -> Dashboard:
    return build_dashboard(
        "usage",
        "Who uses how much, and who reaches a quota.",
        [("Callers", caller_panels())],
    )


def caller_panels() -> Iterable[Builder[Panel]]:
    quota = 'limit="quota"'
    yield graph(
        "Predictions",
        "Predictions per second of all callers.",
        "ops",
        query(or_zero(rate("atalaya_predictions_total")), "predictions"),
    )
    yield graph(
        "Rejected by a quota (429)",
        "Predictions per second of callers who have used up a quota.",
        "reqps",
        query(or_zero(rate("atalaya_rate_limited_total", "", quota)), "over a quota"),
    )

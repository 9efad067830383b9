"""The usage dashboard: usage and cost by caller."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from panels import build_dashboard, graph, stacked
from promql import busiest, or_zero, query, rate, select


def build_usage() -> Dashboard:
    return build_dashboard(
        "usage",
        "Usage and cost by caller, and quotas that are nearly used up.",
        [("Callers", caller_panels()), ("Cost", cost_panels()), ("Quotas", quota_panels())],
    )


def caller_panels() -> Iterable[Builder[Panel]]:
    for counter, name, unit in (
        ("atalaya_usage_predictions_total", "Predictions", "ops"),
        ("atalaya_usage_megapixels_total", "Megapixels", "short"),
    ):
        yield stacked(
            graph(
                f"{name} by caller",
                f"{name} per second of the twelve callers with the most; `other` is everyone without a series.",
                unit,
                query(busiest(rate(counter, "caller"), "caller", counter), "{{caller}}"),
            )
        )


def cost_panels() -> Iterable[Builder[Panel]]:
    by_resource = f"max by (resource) ({select('atalaya_cost_month')})"
    predictions = f"(max({select('atalaya_cost_month_predictions')}) > 0)"
    yield stacked(
        graph(
            "Cost of the month",
            "What this calendar month (UTC) has cost until now, in COST__CURRENCY.",
            "short",
            query(by_resource, "{{resource}}"),
        )
    )
    yield graph(
        "Cost of 1,000 predictions, and saving by sleep",
        "The mean of the month, and how much of the month's cost sleeping without requests would have saved.",
        "short",
        query(f"1000 * sum({by_resource}) / {predictions}", "1,000 predictions"),
        query(f"max({select('atalaya_cost_month_sleep_saving')})", "saving by sleep", "B"),
    )


def quota_panels() -> Iterable[Builder[Panel]]:
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

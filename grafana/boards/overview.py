"""The overview dashboard: whether the service is up, whether it fails, and whether it is slow."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from panels import build_dashboard, graph, in_color, number, rows_of, stacked, states, with_threshold_lines
from promql import (
    PREDICTION_REQUESTS,
    REQUESTS,
    SERVED,
    increase,
    instances,
    largest,
    memory_share,
    or_zero,
    quantile,
    query,
    rate,
    select,
    share,
    table_query,
    up_zero,
)

STATUS = [(3, "online", "green"), (2, "failing", "orange"), (1, "sleeping", "blue"), (0, "down", "red")]
PROVIDER = "atalaya_identity_provider_up"
FIRING = select("atalaya:alerts:firing")
ALERT = "alertname, severity, instance"
FAILED = 'http_response_status_code=~"5.."'


def build_overview() -> Dashboard:
    return build_dashboard(
        "overview",
        "Look here first: whether the service is there, whether it fails, and whether it is slow.",
        [
            ("Now", [*status_panels(), *number_panels()]),
            ("Objectives", objective_panels()),
            ("Requests", request_panels()),
        ],
    )


def status_panels() -> Iterable[Builder[Panel]]:
    yield states(
        "Service status",
        "What users see. Online: it responds. Failing: more than half of the responses of the last minute, except "
        "to probes, were 5xx. Sleeping: the platform stopped an idle instance, and the next request starts it. "
        "Down: Prometheus cannot reach it.",
        STATUS,
        query(f"max by (job) ({select('atalaya:status')})", "service", "A"),
        query(instances(select("atalaya:status"), most=10), "{{instance}}", "B"),
        width=16,
    )
    yield rows_of(
        "Alerts that fire",
        "Alerts that fire now. The runbook has a section for each.",
        table_query(f"sum by ({ALERT}) ({FIRING})"),
        ("severity", "alertname", "instance"),
        width=8,
        empty="No alert fires",
    )
    yield states(
        "Dependencies",
        "What the gateway needs: its database, the shared store of the limits, and identity providers.",
        [(1, "reachable", "green"), (0, "unreachable", "red")],
        query(f"min by (database) ({select('atalaya_database_up')})", "database {{database}}", "A"),
        query(f"min by (store) ({select('atalaya_limit_store_up')})", "limits {{store}}", "B"),
        query(
            largest(f"min by (issuer) ({select(PROVIDER)})", "issuer", PROVIDER, most=6),
            "{{issuer}}",
            "C",
        ),
        height=5,
    )


def number_panels() -> Iterable[Builder[Panel]]:
    yield number(
        "Instances up",
        "Gateways that Prometheus can reach.",
        "short",
        query(f"sum({select('up')})", "up"),
        steps=[(0, "red"), (1, "green")],
    )
    yield number(
        "Alerts",
        "Number of alerts that fire.",
        "short",
        query(f"count(sum by ({ALERT}) ({FIRING})) or {up_zero()}", "alerts"),
        steps=[(0, "green"), (1, "red")],
    )
    yield number(
        "Failed, 5 min",
        "Share of the requests of the last five minutes that got a 5xx response. Probes do not count.",
        "percentunit",
        query(or_zero(f"{window_failures('5m')} >= 0"), "failed"),
        steps=[(0, "green"), (0.01, "orange"), (0.05, "red")],
    )
    yield number(
        "Predictions per second",
        "Predictions that were returned.",
        "ops",
        query(or_zero(rate("atalaya_predictions_total")), "predictions"),
        steps=[(0, "blue")],
    )
    yield number(
        "Prediction time, p95",
        "95 % of the prediction requests take less than this time.",
        "s",
        query(f"{quantile(0.95, REQUESTS, '', PREDICTION_REQUESTS)} >= 0", "p95"),
        steps=[(0, "green"), (0.5, "orange"), (1, "red")],
    )
    yield number(
        "Memory used",
        "The largest share of the memory limit that an instance uses.",
        "percentunit",
        query(f"max({memory_share()})", "memory"),
        steps=[(0, "green"), (0.8, "orange"), (0.9, "red")],
    )


def window_failures(window: str) -> str:
    """The share of the requests in a window that failed."""
    count = f"{REQUESTS}_count"
    return share(increase(count, window, "", SERVED, FAILED), increase(count, window, "", SERVED))


def objective_panels() -> Iterable[Builder[Panel]]:
    for objective, meaning in (
        ("availability", "requests that the gateway failed to serve"),
        ("latency", "prediction requests that took more than a second (2.5 s on /v2)"),
    ):
        slo = f'slo="{objective}"'
        yield number(
            f"Error budget left: {objective}",
            f"Share of the {meaning}, of as many as the objective allows in 30 days, that are still allowed. "
            "Below 0 the objective is missed.",
            "percentunit",
            query(f"min({select('atalaya:service:error_budget_ratio', slo)})", "left"),
            steps=[(0, "red"), (0.1, "orange"), (0.5, "green")],
        ).height(8)
        yield with_threshold_lines(
            graph(
                f"Burn rate of the error budget: {objective}",
                "How many times faster than allowed the budget is used up, over 1, 6 and 72 hours. At 1 it lasts "
                "30 days. An alert fires above 14.4 in an hour (red) and above 6 in six hours (orange).",
                "short",
                query(f"max by (window) ({select('atalaya:service:burn_rate', slo)})", "{{window}}"),
                width=8,
            ),
            (6, "orange"),
            (14.4, "red"),
        )


def request_panels() -> Iterable[Builder[Panel]]:
    classes = [("2..", "2xx, 3xx"), ("4..", "4xx rejected"), ("5..", "5xx failed")]
    patterns = ["[23]..", *(pattern for pattern, _ in classes[1:])]
    yield (
        stacked(
            graph(
                "Requests by status",
                "Responses per second. 4xx are caused by callers, 5xx by the gateway.",
                "reqps",
                *(
                    query(
                        or_zero(rate(f"{REQUESTS}_count", "", f'http_response_status_code=~"{pattern}"')),
                        legend,
                        ref_id,
                    )
                    for pattern, (_, legend), ref_id in zip(patterns, classes, "ABC", strict=True)
                ),
            )
        )
        .override_by_query("A", in_color("green"))
        .override_by_query("B", in_color("yellow"))
        .override_by_query("C", in_color("red"))
    )
    yield graph(
        "Share of requests that failed (5xx)",
        "503 while the gateway is overloaded, otherwise an error of the gateway. Probes do not count.",
        "percentunit",
        query(share(rate(f"{REQUESTS}_count", "", SERVED, FAILED), rate(f"{REQUESTS}_count", "", SERVED)), "failed"),
    ).max(1)
    yield with_threshold_lines(
        graph(
            "Time of prediction requests",
            "From the first byte of the request to the last of the response. Above a second it counts as slow.",
            "s",
            *(
                query(quantile(q, REQUESTS, "", PREDICTION_REQUESTS), legend, ref_id)
                for q, legend, ref_id in ((0.5, "p50", "A"), (0.95, "p95", "B"), (0.99, "p99", "C"))
            ),
        ),
        (1, "red"),
    )
    yield graph(
        "Requests in progress",
        "Requests in progress. When the line rises and stays high, requests arrive faster than they are served.",
        "short",
        query(f"sum({select('http_server_active_requests')})", "in progress"),
    )

"""The latency dashboard: what callers see."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import common, dashboard, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import Dashboard
from panels import graph, new_dashboard
from promql import JOB, REQUESTS, or_none, quantile, query, rate, share_of_requests

STAGES = "atalaya_prediction_stage_seconds"
CONFIDENCE = "atalaya_prediction_confidence"


def build_latency_dashboard() -> Dashboard:
    board = new_dashboard(
        "atalaya-latency", "Atalaya: latency", "What callers see: traffic, errors, latency and rejected requests."
    )
    for title, panels in (
        ("Requests", request_panels()),
        ("Latency", latency_panels()),
        ("Predictions", prediction_panels()),
        ("Rejected requests", rejection_panels()),
    ):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board.build()


def request_panels() -> Iterable[timeseries.Panel]:
    yield graph(
        "Requests by route",
        "Responses per second, whatever their status. At zero, either there is no traffic or callers cannot connect.",
        "reqps",
        query(rate("http_route", f"{REQUESTS}_count"), "{{http_route}}"),
    )
    yield graph(
        "Share of requests rejected (4xx) or failed (5xx)",
        "Per route. 4xx: caused by the caller (bad images, missing credentials, limits). 5xx: caused by the gateway.",
        "percentunit",
        query(share_of_requests("4.."), "{{http_route}} 4xx", "A"),
        query(share_of_requests("5.."), "{{http_route}} 5xx", "B"),
    ).max(1)


def latency_panels() -> Iterable[timeseries.Panel]:
    for q, title, description in (
        (0.5, "Latency, median (p50)", "Half of each route's requests take less than this time."),
        (0.95, "Latency, p95", "95 % of requests take less than this time. The alert uses the prediction routes."),
        (0.99, "Latency, p99", "99 % of requests take less. Queueing and large images are visible here first."),
    ):
        yield graph(title, description, "s", query(quantile(q, "http_route", REQUESTS), "{{http_route}}"), width=8)
    yield graph(
        "Duration of the stages of a prediction",
        "Time spent waiting for a worker (queue), reading the image (decode) and running the model (infer).",
        "s",
        query(quantile(0.5, "stage", STAGES), "{{stage}} p50", "A"),
        query(quantile(0.95, "stage", STAGES), "{{stage}} p95", "B"),
    )
    yield graph(
        "Requests in progress",
        "Requests received but not yet answered. When the line rises and stays high, requests arrive too fast.",
        "short",
        query(f"sum by (http_request_method) (http_server_active_requests{{{JOB}}})", "{{http_request_method}}"),
    )


def prediction_panels() -> Iterable[timeseries.Panel]:
    yield (
        graph(
            "Predictions by class",
            "Predictions per second, stacked by predicted class. A sudden change may indicate a new source of images.",
            "ops",
            query(rate("label", "atalaya_predictions_total"), "{{label}}"),
            width=8,
        )
        .stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
        .fill_opacity(40)
    )
    yield graph(
        "Confidence of predictions",
        "Calibrated probability of the predicted class: median and 10th percentile. "
        "A drop indicates images unlike those the model was trained on.",
        "percentunit",
        query(quantile(0.5, "", CONFIDENCE), "median", "A"),
        query(quantile(0.1, "", CONFIDENCE), "10th percentile", "B"),
        width=8,
    ).max(1)
    yield graph(
        "Abstentions",
        "Predictions per second on which the model advises not to rely, by reason. Many images that are not aerial "
        "indicate a misconfigured client; more low confidence indicates a new region, season or sensor.",
        "ops",
        query(or_none(rate("reason", "atalaya_abstentions_total"), "reason"), "{{reason}}"),
        width=8,
    )


def rejection_panels() -> Iterable[timeseries.Panel]:
    for title, description, metric, labels, legend in (
        (
            "Logins and credential checks",
            "By event and outcome. Many refused checks indicate password guessing or an expired key of a client.",
            "atalaya_auth_events_total",
            "event, outcome",
            "{{event}} {{outcome}}",
        ),
        (
            "Rejected by a rate limit (429)",
            "Rejected requests per second, by limit.",
            "atalaya_rate_limited_total",
            "limit",
            "{{limit}}",
        ),
        (
            "Rejected because of overload (503)",
            "Rejected requests per second, by reason. If this is not rare, add workers or instances.",
            "atalaya_shed_total",
            "reason",
            "{{reason}}",
        ),
    ):
        expression = or_none(rate(labels, metric), labels.partition(",")[0])
        yield graph(title, description, "reqps", query(expression, legend), width=8)

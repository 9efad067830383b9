"""The latency dashboard: where the time of a request goes."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import LIMIT_LINE, build_dashboard, graph, heat_map, stacked, states
from promql import (
    PREDICTION_REQUESTS,
    REQUESTS,
    busiest,
    occurred,
    or_none,
    quantile,
    query,
    rate,
    select,
    share,
    total,
)

STAGES = "atalaya_prediction_stage_seconds"
COUNT = f"{REQUESTS}_count"
INFERENCES = rate(f"{STAGES}_count", "", 'stage="infer"')


def build_latency() -> Dashboard:
    return build_dashboard(
        "latency",
        "Where the time of a request goes: routes, stages of a prediction, models, and waiting.",
        [
            ("Requests", request_panels()),
            ("Predictions", prediction_panels()),
            ("Overload", overload_panels()),
        ],
    )


def request_panels() -> Iterable[Builder[Panel]]:
    yield graph(
        "Requests by route",
        "Responses per second, whatever their status. At zero, either there is no traffic or callers cannot connect.",
        "reqps",
        query(busiest(rate(COUNT, "http_route"), "http_route", COUNT), "{{http_route}}"),
    )
    yield graph(
        "Share of requests rejected (4xx) or failed (5xx)",
        "Of the six busiest routes. 4xx: caused by the caller (bad images, missing credentials, limits). "
        "5xx: caused by the gateway.",
        "percentunit",
        *(
            query(route_share(pattern), f"{{{{http_route}}}} {name}", ref_id)
            for pattern, name, ref_id in (("4..", "4xx", "A"), ("5..", "5xx", "B"))
        ),
    ).max(1)
    for q, title, description in (
        (0.5, "Latency, median (p50)", "Half of each route's requests take less than this time."),
        (0.95, "Latency, p95", "95 % of requests take less than this time. The alert counts predictions only."),
        (0.99, "Latency, p99", "99 % of requests take less. Queueing and large images are visible here first."),
    ):
        yield graph(
            title,
            description,
            "s",
            query(busiest(quantile(q, REQUESTS, "http_route"), "http_route", COUNT), "{{http_route}}"),
            width=8,
        )


def route_share(pattern: str) -> str:
    """The share of each route's requests whose status matches the pattern, for the six busiest routes."""
    part = rate(COUNT, "http_route", f'http_response_status_code=~"{pattern}"')
    return busiest(share(part, rate(COUNT, "http_route")), "http_route", COUNT, most=6)


def prediction_panels() -> Iterable[Builder[Panel]]:
    yield heat_map(
        "Prediction requests by duration",
        "Each row is a range of durations; a dark cell has many requests. Two dark rows are two kinds of requests.",
        "s",
        query(
            f"sum by (le) (increase({select(f'{REQUESTS}_bucket', PREDICTION_REQUESTS)}[$__rate_interval]))", "{{le}}"
        ).format(PromQueryFormat.HEATMAP),
    )
    yield graph(
        "Duration of the stages of a prediction",
        "Time spent waiting for a worker (queue), reading the image (decode), running the model (infer) "
        "and recording (commit).",
        "s",
        query(quantile(0.5, STAGES, "stage"), "{{stage}} p50", "A"),
        query(quantile(0.95, STAGES, "stage"), "{{stage}} p95", "B"),
    )
    yield stacked(
        graph(
            "Where a prediction's time goes",
            "Mean seconds per prediction by stage: the stages add up to what the gateway itself takes.",
            "s",
            query(f"{rate(f'{STAGES}_sum', 'stage')} / on () group_left {INFERENCES}", "{{stage}}"),
        )
    )
    yield graph(
        "Inference time by model, p95",
        "Time to run the model, by the version in service. Compare it after a change of version.",
        "s",
        query(infer_time_by_model(0.95), "{{model}} {{version}}"),
    )


def infer_time_by_model(q: float) -> str:
    """The q-quantile of the inference time by version of the model.

    The histogram has no label for the model: an instance's inferences are counted for the version that it serves at
    that time.
    """
    info = select("atalaya_model_info")
    served = f"topk by (job, instance) (1, {info} == 1)"
    buckets = rate(f"{STAGES}_bucket", "le, job, instance", 'stage="infer"')
    by_model = total(f"{buckets} * on (job, instance) group_left (model, version) {served}", "le, model, version")
    recent = f"topk(12, max by (model, version) (max_over_time({info}[$__range] @ end())))"
    return f"histogram_quantile({q}, {by_model}) and on (model, version) {recent}"


def queue_state() -> str:
    """The worst state of any instance's queue, as a number."""
    states = (("overload", 2), ("shedding", 1), ("normal", 0))
    active = ((select("atalaya_queue_state", f'state="{state}"'), value) for state, value in states)
    return " or ".join(f"{value} * max({series} == 1)" for series, value in active)


def overload_panels() -> Iterable[Builder[Panel]]:
    shed = "atalaya_shed_total"
    yield graph(
        "Rejected because of overload (503)",
        "Rejected requests per second, by reason. If this is not rare, add workers or instances.",
        "reqps",
        query(or_none(occurred(rate(shed, "reason"), "reason", shed), "reason"), "{{reason}}"),
    )
    yield states(
        "State of the queue",
        "Shedding: only a short queue is allowed. Overload: only callers who have no request in progress may wait.",
        [(2, "overload", "red"), (1, "shedding", "orange"), (0, "normal", "green")],
        query(queue_state(), "queue"),
        width=12,
        height=8,
    )
    yield graph(
        "Predictions that wait",
        "Predictions in the queue of all instances, and how many fit. When it is full, requests get 503.",
        "short",
        query(f"sum({select('atalaya_queue_length')})", "waiting", "A"),
        query(f"sum({select('atalaya_queue_capacity')})", "capacity", "B"),
    ).override_by_query("B", LIMIT_LINE)
    yield graph(
        "Time in the queue",
        "How long predictions wait for a worker. It rises before requests are rejected.",
        "s",
        *(
            query(quantile(q, STAGES, "", 'stage="queue"'), legend, ref_id)
            for q, legend, ref_id in ((0.5, "p50", "A"), (0.95, "p95", "B"), (0.99, "p99", "C"))
        ),
    )

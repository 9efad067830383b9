"""Makes the two dashboards that Grafana provisions: `python grafana/dashboards.py [FOLDER]`.

Writes latency.json and resources.json into FOLDER, by default `dashboards` beside this file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import Dashboard as DashboardModel
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
JOB = 'job="atalaya"'
REQUESTS = "http_server_request_duration_seconds"
LIMIT_LINE = [
    DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "red"}),
    DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
    DynamicConfigValue(id_val="custom.fillOpacity", value=0),
]


def rate(by: str, metric: str, *selectors: str) -> str:
    """PromQL: events a second of a counter, by one or more labels."""
    return f"sum by ({by}) (rate({metric}{{{','.join((JOB, *selectors))}}}[$__rate_interval]))"


def quantile(q: float, by: str, histogram: str) -> str:
    """PromQL: the q-quantile of a histogram, by label; over everything where `by` is empty."""
    return f"histogram_quantile({q}, {rate(f'le, {by}' if by else 'le', f'{histogram}_bucket')})"


def share_of_requests(status: str) -> str:
    """PromQL: the share, 0 to 1, of each route's requests with such a status; 0 where there were none of these."""
    every = rate("http_route", f"{REQUESTS}_count")
    failed = rate("http_route", f"{REQUESTS}_count", f'http_response_status_code=~"{status}"')
    return f"({failed} or 0 * {every}) / {every}"


def or_none(expression: str, label: str) -> str:
    """PromQL: a line of zeros named "none" while nothing was counted, and none at all while the gateway is down."""
    return f'{expression} or on () label_replace(0 * (up{{{JOB}}} == 1), "{label}", "none", "", "")'


def query(expression: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref_id).datasource(SOURCE).range()


def graph(title: str, description: str, unit: str, *queries: prometheus.Dataquery, width: int = 12) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .line_width(2)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.TABLE)
            .placement(options.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    for target in queries:
        panel.with_target(target)
    return panel


def request_panels() -> Iterable[timeseries.Panel]:
    yield graph(
        "Requests by route",
        "Requests answered a second, whatever the status. A line that falls to zero means nobody calls, or nobody can.",
        "reqps",
        query(rate("http_route", f"{REQUESTS}_count"), "{{http_route}}"),
    )
    yield graph(
        "Share of requests refused (4xx) or failed (5xx)",
        "Of each route's requests. 4xx is the caller's doing: bad images, missing logins, limits. 5xx is ours.",
        "percentunit",
        query(share_of_requests("4.."), "{{http_route}} 4xx", "A"),
        query(share_of_requests("5.."), "{{http_route}} 5xx", "B"),
    ).max(1)


def latency_panels() -> Iterable[timeseries.Panel]:
    for q, title, description in (
        (0.5, "Latency, median (p50)", "Half of each route's requests are answered within this time."),
        (
            0.95,
            "Latency, p95",
            "19 of 20 requests are answered within this time; the alert watches the prediction routes.",
        ),
        (0.99, "Latency, p99", "The slowest request of a hundred: queueing and large images show here first."),
    ):
        yield graph(title, description, "s", query(quantile(q, "http_route", REQUESTS), "{{http_route}}"), width=8)
    stages = "atalaya_prediction_stage_seconds"
    yield graph(
        "Time by stage of a prediction",
        "Where a prediction's time goes: waiting for a worker (queue), reading the image (decode), the model (infer).",
        "s",
        query(quantile(0.5, "stage", stages), "{{stage}} p50", "A"),
        query(quantile(0.95, "stage", stages), "{{stage}} p95", "B"),
    )
    yield graph(
        "Requests in progress",
        "Requests that have arrived and are not yet answered. A line that climbs and stays up means work piles up.",
        "short",
        query(f"sum by (http_request_method) (http_server_active_requests{{{JOB}}})", "{{http_request_method}}"),
    )


def prediction_panels() -> Iterable[timeseries.Panel]:
    yield (
        graph(
            "Predictions by land use",
            "Predictions answered a second, stacked by the class named. A sudden change of the mix: a new source?",
            "ops",
            query(rate("label", "atalaya_predictions_total"), "{{label}}"),
        )
        .stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
        .fill_opacity(40)
    )
    confidence = "atalaya_prediction_confidence"
    yield graph(
        "Confidence of predictions",
        "Probability of the class named: the median, and the value that a tenth of predictions stay below. "
        "A drop means images unlike those the model was trained on.",
        "percentunit",
        query(quantile(0.5, "", confidence), "median", "A"),
        query(quantile(0.1, "", confidence), "lowest tenth", "B"),
    ).max(1)


def refusal_panels() -> Iterable[timeseries.Panel]:
    for title, description, metric, labels, legend in (
        (
            "Logins and credential checks",
            "By what was tried and how it ended. Many refusals at once: someone guesses, or a client's key expired.",
            "atalaya_auth_events_total",
            "event, outcome",
            "{{event}} {{outcome}}",
        ),
        (
            "Refused by a rate limit (429)",
            "Requests refused a second, by the limit they hit.",
            "atalaya_rate_limited_total",
            "limit",
            "{{limit}}",
        ),
        (
            "Shed because the gateway was full (503)",
            "Requests refused a second, by reason. More than a few: add workers or instances.",
            "atalaya_shed_total",
            "reason",
            "{{reason}}",
        ),
    ):
        expression = or_none(rate(labels, metric), labels.partition(",")[0])
        yield graph(title, description, "reqps", query(expression, legend), width=8)


def resource_panels() -> Iterable[timeseries.Panel]:
    yield graph(
        "CPU cores used",
        "Processor time a second, in cores. At the container's number of cores requests begin to queue.",
        "suffix: cores",
        query(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),
    )
    yield graph(
        "Memory against its limit",
        "Resident memory and the limit of the container; past the limit the process is killed.",
        "bytes",
        query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}} resident", "A"),
        query(f"atalaya_memory_limit_bytes{{{JOB}}}", "{{instance}} limit", "B"),
    ).override_by_query("B", LIMIT_LINE)
    yield graph(
        "Memory used of its limit",
        "Resident memory as a share of the limit; the alert fires above 90 % for five minutes.",
        "percentunit",
        query(f"process_resident_memory_bytes{{{JOB}}} / atalaya_memory_limit_bytes{{{JOB}}}", "{{instance}}"),
    ).max(1)
    yield graph(
        "Memory reserved for images",
        "What requests in progress have reserved of the budget for images; past it newcomers wait, then get 503.",
        "bytes",
        query(f"atalaya_memory_reserved_bytes{{{JOB}}}", "{{instance}}"),
    )
    yield graph(
        "Entries made durable",
        "Entries of the prediction ledger a second: one for each answer, and for each refusal of a known caller.",
        "cps",
        query(rate("instance", "atalaya_ledger_entries_total"), "{{instance}}"),
        width=6,
    )
    yield graph(
        "Entries in the spool",
        "What waits for the database to be back. It should be 0; answers go on until the spool is full.",
        "short",
        query(f"sum by (instance) (atalaya_ledger_spooled_entries{{{JOB}}})", "{{instance}}"),
        width=6,
    )
    yield (
        graph(
            "Open files and sockets against their limit",
            "File descriptors in use and the most allowed, on a log scale. At the limit connections are refused.",
            "short",
            query(f"process_open_fds{{{JOB}}}", "{{instance}} open", "A"),
            query(f"process_max_fds{{{JOB}}}", "{{instance}} limit", "B"),
        )
        .override_by_query("B", LIMIT_LINE)
        .min(1)
        .scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10))
    )


def uptime() -> stat.Panel:
    return (
        stat.Panel()
        .title("Up for")
        .description("Time since the process started. Short, though nobody deployed? It restarted by itself.")
        .datasource(SOURCE)
        .unit("dtdurations")
        .span(6)
        .height(5)
        .graph_mode(options.BigValueGraphMode.NONE)
        .with_target(query(f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}}"))
    )


def model_in_service() -> table.Panel:
    order = {"instance": 0, "model": 1, "version": 2, "backend": 3, "digest": 4}
    hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
    return (
        table.Panel()
        .title("Model in service")
        .description("Name, version, back end and SHA-256 of the file that answers predictions, by instance.")
        .datasource(SOURCE)
        .unit("string")
        .span(18)
        .height(5)
        .with_target(query(f"atalaya_model_info{{{JOB}}}", "").instant().format(PromQueryFormat.TABLE))
        .with_transformation(
            DataTransformerConfig(id_val="organize", options={"indexByName": order, "excludeByName": hidden})
        )
    )


def new_dashboard(uid: str, title: str, description: str) -> dashboard.Dashboard:
    others = dashboard.DashboardLink("Atalaya").type(DashboardLinkType.DASHBOARDS).tags(["atalaya"]).keep_time(True)
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["atalaya"])
        .link(others)
        .timezone("browser")
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )


def latency() -> DashboardModel:
    made = new_dashboard("atalaya-latency", "Atalaya: latency", "What callers see: traffic, errors, time, refusals.")
    for title, panels in (
        ("Requests", request_panels()),
        ("Latency", latency_panels()),
        ("Predictions", prediction_panels()),
        ("Refusals", refusal_panels()),
    ):
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made.build()


def resources() -> DashboardModel:
    made = new_dashboard("atalaya-resources", "Atalaya: resources", "What the process uses, and what it serves.")
    made.with_panel(uptime()).with_panel(model_in_service())
    for panel in resource_panels():
        made.with_panel(panel)
    return made.build()


def as_json(made: DashboardModel) -> str:
    for number, panel in enumerate(made.panels or [], start=1):
        panel.id_val = number
    return json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main(folder: Path) -> None:
    for name, made in (("latency", latency()), ("resources", resources())):
        (folder / f"{name}.json").write_text(as_json(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")

"""The resources dashboard: what the process uses, and which model it serves."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import Dashboard, DataTransformerConfig
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import LIMIT_LINE, graph, new_dashboard
from promql import JOB, SOURCE, query, rate


def build_resources_dashboard() -> Dashboard:
    board = new_dashboard(
        "atalaya-resources", "Atalaya: resources", "What the process uses, and which model it serves."
    )
    board.with_panel(uptime()).with_panel(served_model())
    for panel in (*processor_and_memory_panels(), *ledger_panels(), file_panel(), log_panel(), *job_panels()):
        board.with_panel(panel)
    return board.build()


def uptime() -> stat.Panel:
    return (
        stat.Panel()
        .title("Uptime")
        .description("Time since the process started. A short uptime without a deployment indicates a crash.")
        .datasource(SOURCE)
        .unit("dtdurations")
        .span(6)
        .height(5)
        .graph_mode(options.BigValueGraphMode.NONE)
        .with_target(query(f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}}"))
    )


def served_model() -> table.Panel:
    order = {"instance": 0, "model": 1, "version": 2, "backend": 3, "digest": 4}
    hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
    return (
        table.Panel()
        .title("Served model")
        .description("Name, version, back end and SHA-256 of the model file, by instance.")
        .datasource(SOURCE)
        .unit("string")
        .span(18)
        .height(5)
        .with_target(query(f"atalaya_model_info{{{JOB}}} == 1", "").instant().format(PromQueryFormat.TABLE))
        .with_transformation(
            DataTransformerConfig(id_val="organize", options={"indexByName": order, "excludeByName": hidden})
        )
    )


def processor_and_memory_panels() -> Iterable[timeseries.Panel]:
    yield graph(
        "CPU cores used",
        "Processor time per second, in cores. Requests begin to queue when it reaches the container's cores.",
        "suffix: cores",
        query(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),
    )
    yield graph(
        "Memory and its limit",
        "Resident memory, and the container's limit. The kernel kills a process that exceeds the limit.",
        "bytes",
        query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}} resident", "A"),
        query(f"atalaya_memory_limit_bytes{{{JOB}}}", "{{instance}} limit", "B"),
    ).override_by_query("B", LIMIT_LINE)
    yield graph(
        "Share of the memory limit",
        "Resident memory as a share of the limit. The alert fires above 90 % for five minutes.",
        "percentunit",
        query(f"process_resident_memory_bytes{{{JOB}}} / atalaya_memory_limit_bytes{{{JOB}}}", "{{instance}}"),
    ).max(1)
    yield graph(
        "Memory reserved for images",
        "Reserved by requests in progress. When the budget is used up, new requests wait and then get 503.",
        "bytes",
        query(f"atalaya_memory_reserved_bytes{{{JOB}}}", "{{instance}}"),
    )


def ledger_panels() -> Iterable[timeseries.Panel]:
    yield graph(
        "Ledger entries written",
        "Entries per second: one for each prediction and for each rejected request of an authenticated caller.",
        "cps",
        query(rate("instance", "atalaya_ledger_entries_total"), "{{instance}}"),
        width=6,
    )
    yield graph(
        "Ledger entries in the spool",
        "Entries that wait for the database; normally 0. Predictions continue until the spool is full.",
        "short",
        query(f"sum by (instance) (atalaya_ledger_spooled_entries{{{JOB}}})", "{{instance}}"),
        width=6,
    )


def file_panel() -> timeseries.Panel:
    return (
        graph(
            "Open file descriptors and their limit",
            "Open files and sockets, and their maximum, on a log scale. At the limit, new connections fail.",
            "short",
            query(f"process_open_fds{{{JOB}}}", "{{instance}} open", "A"),
            query(f"process_max_fds{{{JOB}}}", "{{instance}} limit", "B"),
        )
        .override_by_query("B", LIMIT_LINE)
        .min(1)
        .scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10))
    )


def log_panel() -> timeseries.Panel:
    return graph(
        "Dropped log lines",
        "Log lines per second that were dropped because nobody read them; normally 0.",
        "cps",
        query(rate("instance", "atalaya_log_lines_dropped_total"), "{{instance}}"),
    )


def job_panels() -> Iterable[timeseries.Panel]:
    yield graph(
        "Stuck jobs",
        "Images whose decoding or inference did not end, in the last hour. The gateway replaced the process each time.",
        "short",
        query(f"sum by (instance) (increase(atalaya_stuck_jobs_total{{{JOB}}}[1h]))", "{{instance}}"),
    )
    yield graph(
        "Models opened by origin",
        "The prepared copy, or the artefact because the copy was absent or rejected. None should be rejected.",
        "short",
        query(f"sum by (instance, origin) (atalaya_weights_loaded_total{{{JOB}}})", "{{instance}} {{origin}}"),
    )
    yield graph(
        "Preparations",
        "Builds of the model's prepared copy since the start of the process, done or failed.",
        "short",
        query(f"sum by (instance, outcome) (atalaya_preparations_total{{{JOB}}})", "{{instance}} {{outcome}}"),
    )

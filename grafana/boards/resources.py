"""The resources dashboard: what the gateway uses, and how near it is to its limits."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from panels import LIMIT_LINE, build_dashboard, graph, with_threshold_lines
from promql import increase, instances, or_zero, query, rate, select

RESIDENT = select("process_resident_memory_bytes")
LIMIT = select("atalaya_memory_limit_bytes")


def build_resources() -> Dashboard:
    return build_dashboard(
        "resources",
        "What the gateway uses, and how near it is to its limits.",
        [
            ("Processor and memory", processor_and_memory_panels()),
            ("Processes", process_panels()),
            ("Records", record_panels()),
        ],
    )


def processor_and_memory_panels() -> Iterable[Builder[Panel]]:
    yield graph(
        "CPU cores used",
        "Processor time per second, in cores. Requests begin to queue when it reaches the container's cores.",
        "short",
        query(instances(rate("process_cpu_seconds_total", "instance")), "{{instance}}"),
    )
    yield graph(
        "Memory and its limit",
        "Resident memory, and the container's limit. The kernel kills a process that exceeds the limit.",
        "bytes",
        query(instances(RESIDENT, most=6), "{{instance}} resident", "A"),
        query(instances(LIMIT, most=6), "{{instance}} limit", "B"),
    ).override_by_query("B", LIMIT_LINE)
    yield with_threshold_lines(
        graph(
            "Share of the memory limit",
            "Resident memory as a share of the limit. The alert fires above 90 % for five minutes.",
            "percentunit",
            query(instances(f"{RESIDENT} / {LIMIT}"), "{{instance}}"),
        ).max(1),
        (0.9, "red"),
    )
    yield graph(
        "Memory reserved for images",
        "Reserved by requests in progress. When the budget is used up, new requests wait and then get 503.",
        "bytes",
        query(instances(select("atalaya_memory_reserved_bytes")), "{{instance}}"),
    )


def process_panels() -> Iterable[Builder[Panel]]:
    yield graph(
        "Time since the start",
        "A line that falls to 0 is a restart. Restarts without a deployment indicate crashes.",
        "dtdurations",
        query(instances(f"time() - {select('process_start_time_seconds')}"), "{{instance}}"),
    )
    yield file_panel()
    yield graph(
        "Stuck jobs",
        "Images whose decoding or inference did not end, in the last hour. The gateway replaced the process each time.",
        "short",
        query(instances(increase("atalaya_stuck_jobs_total", "1h", "instance")), "{{instance}}"),
    )
    yield graph(
        "Dropped log lines",
        "Log lines per second that were dropped because nobody read them; normally 0.",
        "cps",
        query(instances(rate("atalaya_log_lines_dropped_total", "instance")), "{{instance}}"),
    )


def file_panel() -> timeseries.Panel:
    return (
        graph(
            "Open file descriptors and their limit",
            "Open files and sockets, and their maximum, on a log scale. At the limit, new connections fail.",
            "short",
            query(instances(select("process_open_fds"), most=6), "{{instance}} open", "A"),
            query(instances(select("process_max_fds"), most=6), "{{instance}} limit", "B"),
        )
        .override_by_query("B", LIMIT_LINE)
        .min(1)
        .scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10))
    )


def record_panels() -> Iterable[Builder[Panel]]:
    yield graph(
        "Ledger entries written",
        "Entries per second: one for each prediction and for each rejected request of an authenticated caller.",
        "cps",
        query(instances(rate("atalaya_ledger_entries_total", "instance")), "{{instance}}"),
    )
    yield graph(
        "Ledger entries in the spool",
        "Entries that wait for the database; normally 0. Predictions continue until the spool is full.",
        "short",
        query(instances(select("atalaya_ledger_spooled_entries")), "{{instance}}"),
    )
    failures = (
        ("atalaya_ledger_checkpoint_failures_total", "checkpoints not written", "A"),
        ("atalaya_ledger_contradictions_total", "contradicting rows", "B"),
        ("atalaya_audit_failures_total", "audit entries not written", "C"),
    )
    yield graph(
        "Failed records, last hour",
        "Any value but 0 is serious: entries could be lost without a trace, or were changed.",
        "short",
        *(query(or_zero(increase(metric, "1h")), legend, ref_id) for metric, legend, ref_id in failures),
        width=24,
    )

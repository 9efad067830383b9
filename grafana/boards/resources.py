"""The resources dashboard: what the gateway uses, and how close it is to its limits."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from panels import BUDGET_LINE, LIMIT_LINE, build_dashboard, graph, with_threshold_lines
from promql import (
    increase,
    instances,
    largest,
    memory_share,
    occurred,
    or_none,
    or_zero,
    quantile,
    query,
    rate,
    select,
)

RESIDENT = select("process_resident_memory_bytes")
LIMIT = select("atalaya_memory_limit_bytes")
CPU = "atalaya_container_cpu"
PERIODS = rate(f"{CPU}_periods_total", "instance")
GPU = "atalaya_gpu_utilization_ratio"
LEGEND = "{{certificate}}"


def build_resources() -> Dashboard:
    return build_dashboard(
        "resources",
        "What the gateway uses, and how near it is to its limits.",
        [
            ("Processor and memory", processor_and_memory_panels()),
            ("Processes", process_panels()),
            ("Records", record_panels()),
            ("GPU", gpu_panels()),
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
        "Memory of the processes and of the container. The kernel kills a process that exceeds the limit.",
        "bytes",
        query(instances(RESIDENT, most=4), "{{instance}} resident", "A"),
        query(instances(LIMIT, most=4), "{{instance}} limit", "B"),
        query(instances(select("atalaya_container_memory_working_set_bytes"), most=4), "{{instance}} container", "C"),
    ).override_by_query("B", LIMIT_LINE)
    yield with_threshold_lines(
        graph(
            "Share of the memory limit",
            "The container's working set, or without one the resident memory, as a share of the limit. "
            "The alert fires above 90 % for five minutes.",
            "percentunit",
            query(instances(memory_share()), "{{instance}}"),
        ).max(1),
        (0.9, "red"),
    )
    yield graph(
        "Memory reserved for images",
        "Reserved by requests in progress. When the budget is used up, new requests wait and then get 503.",
        "bytes",
        query(instances(select("atalaya_memory_reserved_bytes"), most=6), "{{instance}} reserved", "A"),
        query(instances(select("atalaya_memory_budget_bytes"), most=6), "{{instance}} budget", "B"),
    ).override_by_query("B", BUDGET_LINE)
    yield with_threshold_lines(
        graph(
            "CPU throttling",
            "Share of the periods in which the container used up its processor quota. Its threads then wait. "
            "The alert fires above 50 % for fifteen minutes.",
            "percentunit",
            query(instances(f"{rate(f'{CPU}_throttled_periods_total', 'instance')} / {PERIODS}"), "{{instance}}"),
        ).max(1),
        (0.5, "red"),
    )
    yield graph(
        "Event-loop lag",
        "How late a timer of the event loop fires: all requests of a process wait as long.",
        "s",
        *(
            query(quantile(q, "atalaya_event_loop_lag_seconds"), legend, ref_id)
            for q, legend, ref_id in ((0.5, "p50", "A"), (0.99, "p99", "B"))
        ),
    )


def gpu_panels() -> Iterable[Builder[Panel]]:
    each = "instance, gpu"
    used, size = "atalaya_gpu_memory_used_bytes", "atalaya_gpu_memory_total_bytes"
    yield graph(
        "GPU utilization",
        "Share of the time in which the GPU worked. Empty without a GPU.",
        "percentunit",
        query(largest(f"max by ({each}) ({select(GPU)})", each, GPU), "{{instance}} GPU {{gpu}}"),
    ).max(1)
    yield graph(
        "GPU memory",
        "Memory of the GPU in use, by all programs, and its size. Empty without a GPU.",
        "bytes",
        query(largest(f"max by ({each}) ({select(used)})", each, used, 6), "{{instance}} GPU {{gpu}} used", "A"),
        query(largest(f"max by ({each}) ({select(size)})", each, used, 6), "{{instance}} GPU {{gpu}} size", "B"),
    ).override_by_query("B", LIMIT_LINE)


def process_panels() -> Iterable[Builder[Panel]]:
    yield graph(
        "Time since the start",
        "A line that falls to 0 is a restart. Restarts without a deployment indicate crashes.",
        "dtdurations",
        query(instances(f"time() - {select('process_start_time_seconds')}"), "{{instance}}"),
        width=8,
    )
    yield file_panel()
    refused = "atalaya_connections_refused_total"
    yield graph(
        "Connections refused",
        "Connections per second that were closed before the application had their request, by the code of the error.",
        "cps",
        query(or_none(occurred(rate(refused, "code"), "code", refused), "code"), "{{code}}"),
        width=8,
    )
    yield graph(
        "Worker processes",
        "Processes that serve requests.",
        "short",
        query(instances(select("atalaya_workers")), "{{instance}}"),
        width=8,
    )
    yield graph(
        "Ended processes, last hour",
        "Workers that died and were replaced, and processes that the kernel killed because memory ran out; normally 0.",
        "short",
        query(or_zero(increase("atalaya_worker_restarts_total", "1h")), "workers replaced", "A"),
        query(or_zero(increase("atalaya_container_oom_kills_total", "1h")), "killed for memory", "B"),
        width=8,
    )
    yield graph(
        "Stuck jobs",
        "Images whose decoding or inference did not end, in the last hour. The gateway replaced the process each time.",
        "short",
        query(instances(increase("atalaya_stuck_jobs_total", "1h", "instance")), "{{instance}}"),
        width=8,
    )


def file_panel() -> timeseries.Panel:
    return (
        graph(
            "Open file descriptors and their limit",
            "Open files and sockets, and their maximum, on a log scale. At the limit, new connections fail.",
            "short",
            query(instances(select("process_open_fds"), most=6), "{{instance}} open", "A"),
            query(instances(select("process_max_fds"), most=6), "{{instance}} limit", "B"),
            width=8,
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
    )
    yield graph(
        "Dropped log lines",
        "Log lines and error reports per second that were dropped because nothing accepted them; normally 0.",
        "cps",
        query(or_zero(rate("atalaya_log_lines_dropped_total")), "log lines", "A"),
        query(or_zero(rate("atalaya_error_reports_dropped_total")), "error reports", "B"),
    )
    yield from task_panels()


def task_panels() -> Iterable[Builder[Panel]]:
    """What operators must do in time: scheduled commands, the maintenance calendar, and certificates."""
    success, failure = "atalaya_task_last_success_timestamp_seconds", "atalaya_task_last_failure_timestamp_seconds"
    yield graph(
        "Time since scheduled commands ran",
        "Such as the verification of the ledger. A line that grows for days is a command that no longer runs.",
        "s",
        query(largest(f"time() - max by (task) ({select(success)})", "task", success, 6), "{{task}} succeeded", "A"),
        query(largest(f"time() - max by (task) ({select(failure)})", "task", failure, 6), "{{task}} failed", "B"),
        width=8,
    )
    due = "atalaya_task_due_timestamp_seconds"
    yield with_threshold_lines(
        graph(
            "Time until scheduled tasks are due",
            "The maintenance calendar. An alert fires for a task that has been overdue for twelve hours.",
            "s",
            query(largest(f"max by (task) ({select(due)}) - time()", "task", due), "{{task}}"),
            width=8,
        ),
        (0, "red"),
    )
    yield with_threshold_lines(
        graph(
            "Time until certificates expire",
            "Alerts fire 14 days and 3 days before. Empty without TLS.",
            "s",
            query(f"min by (certificate) ({select('atalaya_certificate_expiry_timestamp_seconds')}) - time()", LEGEND),
            width=8,
        ),
        (3 * 86400, "red"),
        (14 * 86400, "orange"),
    )

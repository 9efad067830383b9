"""Reports that the gateway could not deliver: log lines, error reports and spans."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from monitoring.metrics.groups.base import MetricGroup


class ReportMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.log_lines_dropped = Counter(
            "atalaya_log_lines_dropped_total",
            "Lines of the log that were dropped because an output did not accept them: standard, file or http.",
            ["output"],
            registry=registry,
        )
        self.error_reports_dropped = Counter(
            "atalaya_error_reports_dropped_total",
            "Error reports that were dropped instead of sent.",
            registry=registry,
        )
        self.spans_dropped = Counter(
            "atalaya_spans_dropped_total",
            "Spans that were dropped because the queue was full or the collector unavailable.",
            registry=registry,
        )

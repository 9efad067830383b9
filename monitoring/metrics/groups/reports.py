"""What the gateway reports of itself and could not deliver: log lines and error reports."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from monitoring.metrics.groups.base import MetricGroup


class ReportMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.log_lines_dropped = Counter(
            "atalaya_log_lines_dropped_total",
            "Lines of the log that were dropped because nobody read them.",
            registry=registry,
        )
        self.error_reports_dropped = Counter(
            "atalaya_error_reports_dropped_total",
            "Error reports that were dropped instead of sent.",
            registry=registry,
        )

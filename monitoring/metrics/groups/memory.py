"""Memory: its limit, and the part for the images of requests in progress."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from monitoring.metrics.groups.base import MetricGroup


class MemoryMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.memory_limit_bytes = Gauge(
            "atalaya_memory_limit_bytes",
            "Memory that the gateway may use before the system kills it.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.memory_budget_bytes = Gauge(
            "atalaya_memory_budget_bytes",
            "Memory for the images of requests in progress.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.memory_reserved_bytes = Gauge(
            "atalaya_memory_reserved_bytes",
            "Memory reserved by requests in progress.",
            registry=registry,
            multiprocess_mode="livesum",
        )

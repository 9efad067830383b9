"""The gateway's processes: how many there are, whether they are ready, and how late their event loops are."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from monitoring.metrics.groups.base import MetricGroup
from monitoring.metrics.scraped import ScrapedMetric, single

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ProcessMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.event_loop_lag = Histogram(
            "atalaya_event_loop_lag_seconds",
            "How late a timer of the event loop fires, measured twice a second: requests wait as long for their turn.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.ready = Gauge(
            "atalaya_ready",
            "1 while GET /readyz is 200 in every process, else 0; checked every five seconds.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.workers = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_workers",
            "Processes that serve requests.",
            registry=shown,
            read=lambda: single(1),
        )
        self.worker_restarts = ScrapedMetric(
            CounterMetricFamily,
            "atalaya_worker_restarts_total",
            "Worker processes that died and were replaced.",
            registry=shown,
            read=lambda: single(0),
        )

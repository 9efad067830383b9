"""HTTP requests, with the names and labels of OpenTelemetry's semantic conventions.

`http_route` is the route's template, never a raw path. `error_type` is the stable code of an error of the gateway, and
empty for errors of callers.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

from monitoring.metrics.groups.base import MetricGroup

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.request_duration = Histogram(
            "http_server_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response.",
            ["http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.active_requests = Gauge(
            "http_server_active_requests",
            "Requests in progress.",
            ["http_request_method", "url_scheme"],
            registry=registry,
            multiprocess_mode="livesum",
        )

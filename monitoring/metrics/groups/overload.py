"""Rate limits, the queue, and requests that were rejected because of overload."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.metrics.groups.base import MetricGroup, create_series

# This package cannot import api, so tests/api/test_first_series.py compares these with the values there.
LIMITS = ("predict", "requests", "token", "oauth", "password", "key", "quota")
SHED_REASONS = ("queue_full", "memory", "deadline", "worker_stuck", "engine_unavailable", "caller_left")
REFUSAL_CODES = ("too_many_connections", "bad_request", "head_too_large", "request_too_slow", "memory_full")


class OverloadMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.rate_limited = Counter(
            "atalaya_rate_limited_total", "Requests rejected by a rate limit.", ["limit"], registry=registry
        )
        create_series(self.rate_limited, *zip(LIMITS))
        self.limit_store_up = Gauge(
            "atalaya_limit_store_up",
            "1 while rate limits are counted in their shared store, 0 while it is unavailable and limits are halved.",
            ["store"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.limit_fallbacks = Counter(
            "atalaya_limit_fallbacks_total",
            "Requests checked against halved limits because the shared store was unavailable.",
            ["store"],
            registry=registry,
        )
        self.shed = Counter(
            "atalaya_shed_total", "Requests rejected because the gateway was overloaded.", ["reason"], registry=registry
        )
        create_series(self.shed, *zip(SHED_REASONS))
        self.connections_refused = Counter(
            "atalaya_connections_refused_total",
            "Connections closed before the application had their request, by the code of the error.",
            ["code"],
            registry=registry,
        )
        create_series(self.connections_refused, *zip(REFUSAL_CODES))
        self.stuck_jobs = Counter(
            "atalaya_stuck_jobs_total",
            "Images whose decoding or inference did not end, so that the process was replaced.",
            registry=registry,
        )
        self.queue_capacity = Gauge(
            "atalaya_queue_capacity",
            "How many predictions may wait for a worker thread.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_length = Gauge(
            "atalaya_queue_length",
            "Predictions that wait for a worker thread; sampled twice a second.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_state = Gauge(
            "atalaya_queue_state",
            "1 for the state of the queue: normal, shedding (only a short queue) or overload (only new callers wait).",
            ["state"],
            registry=registry,
            multiprocess_mode="livemax",
        )

"""What the gateway depends on: the database, identity providers, secrets and certificates."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitoring.metrics.bounded import NameLimit
from monitoring.metrics.groups.base import MetricGroup

MAX_ENDPOINTS = 64
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class DependencyMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.database_up = Gauge(
            "atalaya_database_up",
            "1 while the database (sqlite or postgresql) responds to every process, else 0.",
            ["database"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.identity_provider_up = Gauge(
            "atalaya_identity_provider_up",
            "1 if the last attempt to fetch the keys of an issuer succeeded, else 0. Absent before the first attempt.",
            ["issuer"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.secret_reads = Counter(
            "atalaya_secret_reads_total",
            "Attempts to read the secrets again: read, unavailable (no provider) or rejected (a value is not usable).",
            ["outcome"],
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "atalaya_certificate_expiry_timestamp_seconds",
            "When the first certificate in TLS_CERTIFICATE (server) or TLS_CLIENT_CA (client_ca) expires.",
            ["certificate"],
            registry=registry,
            multiprocess_mode="livemin",
        )


class EngineMetrics(MetricGroup):
    """The inference engines that compute predictions in place of this process.

    `engine_endpoints` chooses the endpoints that have series of their own; further ones share `other`.
    """

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.engine_endpoints = NameLimit(MAX_ENDPOINTS)
        self.engine_in_flight = Gauge(
            "atalaya_engine_requests_in_flight",
            "Requests to an inference engine that are in progress.",
            ["endpoint"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.engine_seconds = Histogram(
            "atalaya_engine_request_seconds",
            "How long requests to an inference engine take, including those that fail.",
            ["endpoint"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.engine_up = Gauge(
            "atalaya_engine_up",
            "1 for an inference engine that gets requests, 0 for an ejected one, NaN for one that is no longer used. "
            f"Endpoints after the first {MAX_ENDPOINTS} since the start share `other`: 0 while any of them is ejected.",
            ["endpoint"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.engine_ejections = Counter(
            "atalaya_engine_ejections_total",
            "Ejections of an inference engine, which then gets no requests until a check succeeds.",
            ["endpoint"],
            registry=registry,
        )
        self.engine_failures = Counter(
            "atalaya_engine_failures_total",
            "Requests to which an inference engine responded with an error or without a valid prediction.",
            ["endpoint"],
            registry=registry,
        )
        self.engine_retries = Counter(
            "atalaya_engine_retries_total",
            "Requests that were sent to another inference engine because one did not process them or did not respond.",
            registry=registry,
        )
        self.engine_fallbacks = Counter(
            "atalaya_engine_fallbacks_total",
            "Predictions that the local model made because no inference engine worked.",
            registry=registry,
        )

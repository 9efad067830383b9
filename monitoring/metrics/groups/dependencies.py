"""What the gateway depends on: the database, identity providers, secrets and certificates."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.metrics.groups.base import MetricGroup


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
            "When the first certificate in use expires, of TLS_CERTIFICATE (server) and TLS_CLIENT_CA (client_ca).",
            ["certificate"],
            registry=registry,
            multiprocess_mode="livemin",
        )

"""The audit log, the prediction ledger and the store of images."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.metrics.groups.base import MetricGroup, create_series

WATCHED_EVENTS = (("token", "refused"), ("access", "invalid"))
"""The events and outcomes that an alert counts. The others have a series once they have happened."""


class RecordMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.auth_events = Counter(
            "atalaya_auth_events_total", "Logins and credential checks.", ["event", "outcome"], registry=registry
        )
        create_series(self.auth_events, *WATCHED_EVENTS)
        self.audit_failures = Counter(
            "atalaya_audit_failures_total", "Failed attempts to write the audit log.", registry=registry
        )
        self.ledger_entries = Counter(
            "atalaya_ledger_entries_total", "Entries of the prediction ledger made durable.", registry=registry
        )
        self.ledger_contradictions = Counter(
            "atalaya_ledger_contradictions_total",
            "Rows of the ledger that contradict a signature, or what this process has written.",
            registry=registry,
        )
        self.ledger_checkpoint_failures = Counter(
            "atalaya_ledger_checkpoint_failures_total",
            "Checkpoints of the ledger that could not be written.",
            registry=registry,
        )
        self.images_kept = Counter(
            "atalaya_images_kept_total", "Images kept because their owners allow it.", registry=registry
        )
        self.images_not_kept = Counter(
            "atalaya_images_not_kept_total",
            "Images not kept although their owners allow it: the store failed, is full, or is too slow (backlog).",
            ["reason"],
            registry=registry,
        )
        self.image_store_bytes = Gauge(
            "atalaya_image_store_bytes",
            "Bytes in the store of images when this process last added one.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.ledger_state = Gauge(
            "atalaya_ledger_state",
            "1 for where entries are written: writing (database), spooling (local file) or full (nowhere).",
            ["state"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.ledger_spooled = Gauge(
            "atalaya_ledger_spooled_entries",
            "Spooled entries that wait for the database.",
            registry=registry,
            multiprocess_mode="livesum",
        )

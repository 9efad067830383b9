"""Every metric of the gateway, created in one place on a registry that is passed in.

HTTP metrics follow OpenTelemetry's semantic conventions; `http_route` is the route's template, never a raw path.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """The metrics of one gateway; two instances on two registries are independent.

    The multiprocess mode of a gauge says how the values of several workers are combined (monitoring/multiprocess.py).
    Adds `process_*` (CPU, memory, file descriptors, start time) to the registry. Raises ValueError for a second
    instance on the same registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._create_request_metrics(registry)
        self._create_prediction_metrics(registry)
        self._create_record_metrics(registry)
        self._create_log_metrics(registry)
        self._create_overload_metrics(registry)
        self._create_memory_metrics(registry)
        ProcessCollector(registry=registry)

    def _create_request_metrics(self, registry: CollectorRegistry) -> None:
        self.request_duration = Histogram(
            "http_server_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response.",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.active_requests = Gauge(
            "http_server_active_requests",
            "Requests in progress.",
            ["http_request_method"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def _create_prediction_metrics(self, registry: CollectorRegistry) -> None:
        self.stage_seconds = Histogram(
            "atalaya_prediction_stage_seconds",
            "Time that a prediction spends in each stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.predictions = Counter(
            "atalaya_predictions_total", "Predictions returned.", ["model", "label"], registry=registry
        )
        self.confidence = Histogram(
            "atalaya_prediction_confidence",
            "Calibrated probability of the predicted class.",
            buckets=_CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self.abstentions = Counter(
            "atalaya_abstentions_total",
            "Predictions of which the model abstains, marked or refused.",
            ["reason"],
            registry=registry,
        )
        self.model_info = Gauge(
            "atalaya_model_info",
            "1 for the model in service, 0 for those that served before.",
            ["model", "version", "digest", "backend"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.model_loads = Counter(
            "atalaya_model_loads_total",
            "Versions loaded to follow an alias: switched, or failed and not served.",
            ["outcome"],
            registry=registry,
        )
        self.weights_loaded = Counter(
            "atalaya_weights_loaded_total",
            "Models opened, by origin: prepared, or the artefact because the prepared copy was absent or rejected.",
            ["origin"],
            registry=registry,
        )
        self.preparations = Counter(
            "atalaya_preparations_total", "Builds of prepared copies, done or failed.", ["outcome"], registry=registry
        )

    def _create_record_metrics(self, registry: CollectorRegistry) -> None:
        self.auth_events = Counter(
            "atalaya_auth_events_total", "Log-ins and credential checks.", ["event", "outcome"], registry=registry
        )
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

    def _create_log_metrics(self, registry: CollectorRegistry) -> None:
        self.log_lines_dropped = Counter(
            "atalaya_log_lines_dropped_total",
            "Lines of the log that were dropped because nobody read them.",
            registry=registry,
        )

    def _create_overload_metrics(self, registry: CollectorRegistry) -> None:
        self.rate_limited = Counter(
            "atalaya_rate_limited_total", "Requests rejected by a rate limit.", ["limit"], registry=registry
        )
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

        self.stuck_jobs = Counter(
            "atalaya_stuck_jobs_total",
            "Images whose decoding or inference did not end, so that the process was replaced.",
            registry=registry,
        )

    def _create_memory_metrics(self, registry: CollectorRegistry) -> None:
        self.memory_limit_bytes = Gauge(
            "atalaya_memory_limit_bytes",
            "Memory that the gateway may use before the system ends it.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.memory_reserved_bytes = Gauge(
            "atalaya_memory_reserved_bytes",
            "Memory reserved by requests in progress.",
            registry=registry,
            multiprocess_mode="livesum",
        )

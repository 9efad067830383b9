"""The metrics of the gateway: names, labels and buckets."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from monitoring.metrics import Metrics
from monitoring.quality.evaluations import EvaluationComparison
from monitoring.tasks.calendar import CalendarEntry
from monitoring.tasks.runs import Task, TaskRuns
from tests.monitoring.quality.evaluations import make_evaluation


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def observe_all(metrics: Metrics) -> None:
    metrics.request_duration.labels("POST", "/v1/predictions", "503", "https", "memory_full").observe(0.02)
    metrics.active_requests.labels(http_request_method="POST", url_scheme="https").inc()
    metrics.event_loop_lag.observe(0.003)
    metrics.queue_capacity.set(64)
    metrics.queue_length.set(3)
    metrics.queue_state.labels("shedding").set(1)
    metrics.memory_budget_bytes.set(200 * 2**20)
    metrics.database_up.labels("sqlite").set(1)
    metrics.identity_provider_up.labels("https://id.example.org").set(0)
    metrics.secret_reads.labels("unavailable").inc()
    metrics.certificate_expiry.labels("server").set(1_900_000_000)
    metrics.error_reports_dropped.inc()
    metrics.count_usage("user:1", 3_000_000)
    metrics.month_cost.labels("memory").set(4.5)
    metrics.month_cost_predictions.set(1000)
    metrics.month_sleep_saving.set(1.5)
    metrics.aliases = {("land", "production", "1.1"): 1}
    metrics.task_runs = [TaskRuns(Task.LEDGER_VERIFY, 1_800_000_000, 1_700_000_000, 2)]
    metrics.calendar = [CalendarEntry(Task.BACKUP, 1, None, None, 1_800_086_400)]
    metrics.evaluation = make_evaluation(
        at=1_800_000_000, comparison=EvaluationComparison("earlier", 8, 1, 0.04), is_loss=True
    )
    metrics.has_evaluation_loss = True
    metrics.stage_seconds.labels(stage="infer").observe(0.006)
    metrics.predictions.labels(model="efficientnetb0-v1.1", label="forest").inc()
    metrics.confidence.observe(0.93)
    metrics.abstentions.labels(reason="low_confidence").inc()
    metrics.auth_events.labels(event="token", outcome="refused").inc()
    metrics.audit_failures.inc()
    metrics.ledger_contradictions.inc()
    metrics.ledger_checkpoint_failures.inc()
    metrics.rate_limited.labels(limit="predict").inc()
    metrics.shed.labels(reason="queue_full").inc()
    metrics.stuck_jobs.inc(2)
    metrics.model_loads.labels(outcome="switched").inc()
    metrics.registry_pulls.labels(outcome="moved").inc()
    metrics.model_info.labels(model="efficientnetb0", version="1.0", digest="ab12", backend="onnx").set(1)
    metrics.weights_loaded.labels(origin="prepared").inc()
    metrics.preparations.labels(outcome="done").inc()
    metrics.labels.labels(model="efficientnetb0-v1.1", correct="true").inc()
    metrics.live_accuracy.labels(model="efficientnetb0-v1.1").set(0.93)
    metrics.live_accuracy_lower.labels(model="efficientnetb0-v1.1").set(0.9)
    metrics.estimated_accuracy.labels(model="efficientnetb0-v1.1").set(0.94)
    drift = {metrics.drift_callers: 3, metrics.drift_overall: 1, metrics.drift_recent: 61, metrics.drift_reference: 119}
    for gauge, value in drift.items():
        gauge.labels("efficientnetb0-v1.1", "brightness").set(value)
    metrics.memory_limit_bytes.set(512 * 2**20)
    metrics.log_lines_dropped.labels("http").inc(7)
    metrics.canary_comparisons.labels(metric="latency", result="worse").inc(3)
    metrics.canary_log_e.labels(metric="latency", direction="promote").set(-1.5)
    metrics.canary_shadow.labels(outcome="dropped").inc(4)
    metrics.canary_verdicts.labels(verdict="take_back").inc()
    metrics.spans_dropped.inc(5)


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        (
            "http_server_request_duration_seconds_bucket",
            {
                "http_request_method": "POST",
                "http_route": "/v1/predictions",
                "http_response_status_code": "503",
                "url_scheme": "https",
                "error_type": "memory_full",
                "le": "0.025",
            },
            1,
        ),
        ("http_server_active_requests", {"http_request_method": "POST", "url_scheme": "https"}, 1),
        ("atalaya_event_loop_lag_seconds_bucket", {"le": "0.0025"}, 0),
        ("atalaya_event_loop_lag_seconds_bucket", {"le": "0.005"}, 1),
        ("atalaya_queue_capacity", {}, 64),
        ("atalaya_queue_length", {}, 3),
        ("atalaya_queue_state", {"state": "shedding"}, 1),
        ("atalaya_memory_budget_bytes", {}, 209715200),
        ("atalaya_database_up", {"database": "sqlite"}, 1),
        ("atalaya_identity_provider_up", {"issuer": "https://id.example.org"}, 0),
        ("atalaya_secret_reads_total", {"outcome": "unavailable"}, 1),
        ("atalaya_certificate_expiry_timestamp_seconds", {"certificate": "server"}, 1_900_000_000),
        ("atalaya_error_reports_dropped_total", {}, 1),
        ("atalaya_usage_predictions_total", {"caller": "other"}, 1),
        ("atalaya_usage_megapixels_total", {"caller": "other"}, 3),
        ("atalaya_cost_month", {"resource": "memory"}, 4.5),
        ("atalaya_cost_month_predictions", {}, 1000),
        ("atalaya_cost_month_sleep_saving", {}, 1.5),
        ("atalaya_model_alias", {"model": "land", "alias": "production", "version": "1.1"}, 1),
        ("atalaya_task_last_success_timestamp_seconds", {"task": "ledger_verify"}, 1_800_000_000),
        ("atalaya_task_last_failure_timestamp_seconds", {"task": "ledger_verify"}, 1_700_000_000),
        ("atalaya_task_due_timestamp_seconds", {"task": "backup"}, 1_800_086_400),
        ("atalaya_ledger_verified_timestamp_seconds", {}, 1_800_000_000),
        ("atalaya_ledger_verification_failures_total", {}, 2),
        ("atalaya_workers", {}, 1),
        ("atalaya_worker_restarts_total", {}, 0),
        ("atalaya_prediction_stage_seconds_sum", {"stage": "infer"}, 0.006),
        ("atalaya_predictions_total", {"model": "efficientnetb0-v1.1", "label": "forest"}, 1),
        ("atalaya_prediction_confidence_bucket", {"le": "0.9"}, 0),
        ("atalaya_prediction_confidence_bucket", {"le": "0.95"}, 1),
        ("atalaya_abstentions_total", {"reason": "low_confidence"}, 1),
        ("atalaya_auth_events_total", {"event": "token", "outcome": "refused"}, 1),
        ("atalaya_audit_failures_total", {}, 1),
        ("atalaya_ledger_contradictions_total", {}, 1),
        ("atalaya_ledger_checkpoint_failures_total", {}, 1),
        ("atalaya_rate_limited_total", {"limit": "predict"}, 1),
        ("atalaya_shed_total", {"reason": "queue_full"}, 1),
        (
            "atalaya_model_info",
            {"model": "efficientnetb0", "version": "1.0", "digest": "ab12", "backend": "onnx"},
            1,
        ),
        ("atalaya_model_loads_total", {"outcome": "switched"}, 1),
        ("atalaya_registry_pulls_total", {"outcome": "moved"}, 1),
        ("atalaya_weights_loaded_total", {"origin": "prepared"}, 1),
        ("atalaya_preparations_total", {"outcome": "done"}, 1),
        ("atalaya_labels_total", {"model": "efficientnetb0-v1.1", "correct": "true"}, 1),
        ("atalaya_live_accuracy", {"model": "efficientnetb0-v1.1"}, 0.93),
        ("atalaya_live_accuracy_lower", {"model": "efficientnetb0-v1.1"}, 0.9),
        ("atalaya_estimated_accuracy", {"model": "efficientnetb0-v1.1"}, 0.94),
        ("atalaya_evaluation_timestamp_seconds", {"model": "tiny-v1.0"}, 1_800_000_000),
        ("atalaya_evaluation_images", {"model": "tiny-v1.0"}, 210),
        ("atalaya_evaluation_accuracy", {"model": "tiny-v1.0"}, 0.97),
        ("atalaya_evaluation_accuracy_lower", {"model": "tiny-v1.0"}, 0.94),
        ("atalaya_evaluation_macro_f1", {"model": "tiny-v1.0"}, 0.96),
        ("atalaya_evaluation_ece", {"model": "tiny-v1.0"}, 0.012),
        ("atalaya_evaluation_lost_images", {"model": "tiny-v1.0"}, 8),
        ("atalaya_evaluation_gained_images", {"model": "tiny-v1.0"}, 1),
        ("atalaya_evaluation_loss", {"model": "tiny-v1.0"}, 1),
        ("atalaya_drift_callers", {"model": "efficientnetb0-v1.1", "metric": "brightness"}, 3),
        ("atalaya_drift_overall", {"model": "efficientnetb0-v1.1", "metric": "brightness"}, 1),
        ("atalaya_drift_recent", {"model": "efficientnetb0-v1.1", "metric": "brightness"}, 61),
        ("atalaya_drift_reference", {"model": "efficientnetb0-v1.1", "metric": "brightness"}, 119),
        ("atalaya_memory_limit_bytes", {}, 536870912),
        ("atalaya_stuck_jobs_total", {}, 2),
        ("atalaya_log_lines_dropped_total", {"output": "http"}, 7),
        ("atalaya_canary_comparisons_total", {"metric": "latency", "result": "worse"}, 3),
        ("atalaya_canary_log_e", {"metric": "latency", "direction": "promote"}, -1.5),
        ("atalaya_canary_shadow_total", {"outcome": "dropped"}, 4),
        ("atalaya_canary_verdicts_total", {"verdict": "take_back"}, 1),
        ("atalaya_spans_dropped_total", {}, 5),
    ],
)
def test_names_and_labels(registry: CollectorRegistry, name: str, labels: dict[str, str], value: float) -> None:
    """Each metric has the name and labels that dashboards and alerts query."""
    observe_all(Metrics(registry))
    assert registry.get_sample_value(name, labels) == value


def test_process_metrics(registry: CollectorRegistry) -> None:
    """The registry includes CPU time, memory, file descriptors and start time of the process."""
    Metrics(registry)
    names = (
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    )
    assert all((registry.get_sample_value(name) or 0) > 0 for name in names)


def test_two_registries_do_not_clash() -> None:
    """Two gateways in one process count independently, and neither uses the library's global registry."""
    first, second = CollectorRegistry(), CollectorRegistry()
    Metrics(first).shed.labels(reason="queue_full").inc()
    Metrics(second)
    assert b'atalaya_shed_total{reason="queue_full"} 1.0' in generate_latest(first)
    assert b'atalaya_shed_total{reason="queue_full"} 0.0' in generate_latest(second)


@pytest.mark.parametrize(
    ("histogram", "lowest", "highest"),
    [
        ("http_server_request_duration_seconds", 0.005, 10.0),
        ("atalaya_prediction_stage_seconds", 0.0005, 2.5),
        ("atalaya_prediction_confidence", 0.1, 1.0),
        ("atalaya_event_loop_lag_seconds", 0.001, 2.5),
    ],
)
def test_bucket_ranges(registry: CollectorRegistry, histogram: str, lowest: float, highest: float) -> None:
    """The buckets of each histogram span the range of values that it is expected to measure."""
    observe_all(Metrics(registry))
    bounds = {
        float(sample.labels["le"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{histogram}_bucket"
    }
    finite = sorted(bounds - {math.inf})
    assert (finite[0], finite[-1]) == (lowest, highest)
    assert math.inf in bounds


def test_what_is_unknown_is_not_shown(registry: CollectorRegistry) -> None:
    """An unknown value, such as the last success of a task that never succeeded, has no series rather than a 0."""
    Metrics(registry).task_runs = [TaskRuns(Task.UPKEEP, None, 5, 1)]
    text = generate_latest(registry).decode()
    assert 'atalaya_task_last_failure_timestamp_seconds{task="upkeep"} 5.0' in text
    for name in ("task_last_success", "ledger_verified", "ledger_verification_failures", "model_alias"):
        assert f"atalaya_{name}" not in text

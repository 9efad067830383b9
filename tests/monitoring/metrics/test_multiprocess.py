"""Combining the metrics of several workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from monitoring.metrics import Metrics
from monitoring.metrics.multiprocess import build_shared_registry, remove_gauges

GET_OVER_HTTP = {"http_request_method": "GET", "url_scheme": "http"}
WORKER = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from monitoring.metrics import Metrics
from monitoring.metrics.bounded import NameLimit
from monitoring.metrics.multiprocess import share_metrics

share_metrics(Path(sys.argv[1]), int(sys.argv[2]))
metrics = Metrics(CollectorRegistry())
metrics.shed.labels("queue_full").inc(float(sys.argv[3]))
metrics.confidence.observe(0.97)
metrics.active_requests.labels("GET", "http").inc()
metrics.ledger_state.labels("full").set(int(sys.argv[2]) == 1)
metrics.ledger_spooled.set(0)
metrics.limit_store_up.labels("redis").set(1)
metrics.model_info.labels("stub", "1.0", "ab12", "stub").set(1)
metrics.memory_limit_bytes.set(512)
metrics.memory_budget_bytes.set(100)
metrics.memory_reserved_bytes.set(0)
metrics.canary_log_e.labels("latency", "promote").set(1)
for accuracy in (metrics.live_accuracy, metrics.live_accuracy_lower, metrics.estimated_accuracy):
    accuracy.labels("stub-v1.0").set(0.9)
for drift in (metrics.drift_callers, metrics.drift_overall, metrics.drift_recent, metrics.drift_reference):
    drift.labels("stub-v1.0", "brightness").set(1)
metrics.month_cost.labels("memory").set(1)
for engine in (metrics.engine_in_flight, metrics.engine_up):
    engine.labels("10.0.0.7:8000").set(1)
metrics.queue_capacity.set(64)
metrics.queue_length.set(int(sys.argv[2]))
metrics.queue_state.labels("overload").set(int(sys.argv[2]) == 1)
metrics.database_up.labels("sqlite").set(int(sys.argv[2]) == 1)
metrics.identity_provider_up.labels("https://id.example.org").set(int(sys.argv[2]) == 1)
metrics.certificate_expiry.labels("server").set(1000 + int(sys.argv[2]))
metrics.callers = NameLimit(2, Path(sys.argv[1]) / "callers")
for caller in ("user:a", f"user:{sys.argv[2]}", "user:c", f"user:{sys.argv[2]}"):
    metrics.count_usage(caller, 1_000_000)
"""


def run_worker(folder: Path, slot: int, count: int) -> None:
    """Run a worker that writes its metrics and exits."""
    subprocess.run([sys.executable, "-c", WORKER, folder, str(slot), str(count)], check=True, timeout=60)


def build_registry(folder: Path) -> CollectorRegistry:
    return build_shared_registry(folder, lambda: [os.getpid()])


def test_metrics_of_workers_are_combined(tmp_path: Path) -> None:
    """Counters and histograms are summed; a gauge is the sum or the greatest of the workers' values."""
    for slot in (0, 1):
        run_worker(tmp_path, slot, slot + 2)
    registry = build_registry(tmp_path)
    assert registry.get_sample_value("atalaya_shed_total", {"reason": "queue_full"}) == 5
    assert registry.get_sample_value("atalaya_prediction_confidence_count") == 2
    assert registry.get_sample_value("http_server_active_requests", GET_OVER_HTTP) == 2
    assert registry.get_sample_value("atalaya_ledger_state", {"state": "full"}) == 1
    assert registry.get_sample_value("atalaya_memory_limit_bytes") == 512


def test_each_gauge_is_combined_by_its_meaning(tmp_path: Path) -> None:
    """Capacities are summed; states report the worst value, expiries the earliest, identity providers the latest."""
    for slot in (1, 0):
        run_worker(tmp_path, slot, 1)
    value = build_registry(tmp_path).get_sample_value
    assert (value("atalaya_queue_capacity"), value("atalaya_queue_length")) == (128, 1)
    assert value("atalaya_memory_budget_bytes") == 200
    assert value("atalaya_queue_state", {"state": "overload"}) == 1
    assert value("atalaya_database_up", {"database": "sqlite"}) == 0
    assert value("atalaya_identity_provider_up", {"issuer": "https://id.example.org"}) == 0
    assert value("atalaya_certificate_expiry_timestamp_seconds", {"certificate": "server"}) == 1000


def test_workers_choose_the_same_callers(tmp_path: Path) -> None:
    """Each prediction is counted once, under the callers that the first worker chose or under `other`."""
    for slot in (0, 1):
        run_worker(tmp_path, slot, 1)
    registry = build_registry(tmp_path)
    counts = {
        sample.labels["caller"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "atalaya_usage_predictions_total"
    }
    assert counts == {"user:a": 2, "user:0": 2, "other": 4}


def test_a_replacement_continues_the_counters(tmp_path: Path) -> None:
    """A worker continues the counters of its predecessor in the same slot, whose gauges are removed."""
    run_worker(tmp_path, 0, 2)
    remove_gauges(tmp_path, 0)
    files = set(tmp_path.iterdir())
    run_worker(tmp_path, 0, 3)
    registry = build_registry(tmp_path)
    assert registry.get_sample_value("atalaya_shed_total", {"reason": "queue_full"}) == 5
    assert registry.get_sample_value("http_server_active_requests", GET_OVER_HTTP) == 1
    remove_gauges(tmp_path, 0)
    assert set(tmp_path.iterdir()) == files


def test_ended_processes_are_ignored(tmp_path: Path) -> None:
    """A process that has exited contributes nothing to `process_*` and causes no error."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    registry = build_shared_registry(tmp_path, lambda: [os.getpid(), ended.pid])
    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 1e6
    assert (registry.get_sample_value("process_cpu_seconds_total") or 0) > 0


def test_every_gauge_is_combined(tmp_path: Path) -> None:
    """No gauge uses the library's default, which exposes one value for each process under the label `pid`."""
    run_worker(tmp_path, 0, 1)
    gauges = [metric for metric in vars(Metrics(CollectorRegistry())).values() if isinstance(metric, Gauge)]
    families = [
        family
        for family in build_registry(tmp_path).collect()
        if family.type == "gauge" and not family.name.startswith("process_")
    ]
    assert len(families) == len(gauges) >= 5
    assert [family.name for family in families for sample in family.samples if "pid" in sample.labels] == []

"""Workers' metrics become one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from monitoring.metrics import Metrics
from monitoring.multiprocess import forget_gauges, shared_registry

WORKER = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from monitoring.metrics import Metrics
from monitoring.multiprocess import share_metrics

share_metrics(Path(sys.argv[1]), int(sys.argv[2]))
metrics = Metrics(CollectorRegistry())
metrics.shed.labels("queue_full").inc(float(sys.argv[3]))
metrics.confidence.observe(0.97)
metrics.active_requests.labels("GET").inc()
metrics.ledger_state.labels("full").set(int(sys.argv[2]) == 1)
metrics.memory_limit_bytes.set(512)
"""


def work(folder: Path, place: int, count: int) -> None:
    """A worker lives and ends."""
    subprocess.run([sys.executable, "-c", WORKER, folder, str(place), str(count)], check=True, timeout=60)


def test_sums(tmp_path: Path) -> None:
    """Counters and histograms are added up; of gauges each says whether its sum or its greatest value counts."""
    for place in (0, 1):
        work(tmp_path, place, place + 2)
    shown = shared_registry(tmp_path, lambda: [os.getpid()])
    assert shown.get_sample_value("atalaya_shed_total", {"reason": "queue_full"}) == 5
    assert shown.get_sample_value("atalaya_prediction_confidence_count") == 2
    assert shown.get_sample_value("http_server_active_requests", {"http_request_method": "GET"}) == 2
    assert shown.get_sample_value("atalaya_ledger_state", {"state": "full"}) == 1
    assert shown.get_sample_value("atalaya_memory_limit_bytes") == 512


def test_a_successor_counts_on(tmp_path: Path) -> None:
    """Who takes a place over counts on; what the one before it was doing when it died is forgotten."""
    work(tmp_path, 0, 2)
    forget_gauges(tmp_path, 0)
    files = set(tmp_path.iterdir())
    work(tmp_path, 0, 3)
    shown = shared_registry(tmp_path, lambda: [os.getpid()])
    assert shown.get_sample_value("atalaya_shed_total", {"reason": "queue_full"}) == 5
    assert shown.get_sample_value("http_server_active_requests", {"http_request_method": "GET"}) == 1
    forget_gauges(tmp_path, 0)
    assert set(tmp_path.iterdir()) == files


def test_processes_that_have_gone(tmp_path: Path) -> None:
    """A process that ends while it is looked at is no error."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    shown = shared_registry(tmp_path, lambda: [os.getpid(), gone.pid])
    assert (shown.get_sample_value("process_resident_memory_bytes") or 0) > 1e6
    assert (shown.get_sample_value("process_cpu_seconds_total") or 0) > 0


def test_every_gauge_says_how() -> None:
    """No gauge is left to the library's default, which would show one a process."""
    gauges = [one for one in vars(Metrics(CollectorRegistry())).values() if isinstance(one, Gauge)]
    assert len(gauges) >= 5
    assert [one._name for one in gauges if not one._multiprocess_mode.startswith("live")] == []

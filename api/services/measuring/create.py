"""Creates the metrics of a process. Metrics about all processes of the gateway read the shared directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from api.server.shared_directory import Processes, read_processes
from api.settings import Settings
from monitoring.metrics import Metrics
from monitoring.metrics.bounded import NameLimit
from monitoring.metrics.groups.predictions import MAX_MODELS
from monitoring.metrics.scraped import Values, single

# Files of the shared directory.
_CALLERS, _MODELS = "callers", "models"


def create_metrics(settings: Settings, registry: CollectorRegistry, shown: CollectorRegistry | None) -> Metrics:
    """Create the metrics of this process on `registry`, and those of all processes on `shown` (default: `registry`)."""
    metrics, shared = Metrics(registry, shown), settings.atalaya_shared
    metrics.callers = NameLimit(settings.monitoring.usage_callers, shared and shared / _CALLERS)
    metrics.models = NameLimit(MAX_MODELS, shared and shared / _MODELS)
    if shared is not None:
        metrics.workers.read = lambda: _count(shared, lambda processes: len(processes.pids) - 1)
        metrics.worker_restarts.read = lambda: _count(shared, lambda processes: processes.restarts)
    return metrics


def _count(shared: Path, count: Callable[[Processes], int]) -> Values:
    try:
        return single(count(read_processes(shared)))
    except FileNotFoundError:  # the supervisor has removed the directory, and this process is about to end
        return {}

"""The metrics of a process, and how those are read that describe all processes of the gateway."""

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
    """Create them on `registry`, and what all processes share on `shown`, which by default is `registry`."""
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
    except FileNotFoundError:  # the supervisor has removed the directory, and this process ends
        return {}

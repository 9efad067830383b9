"""Every metric of the gateway, created on a registry that is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from monitoring.metrics.groups.canary import CanaryMetrics
from monitoring.metrics.groups.dependencies import DependencyMetrics, EngineMetrics
from monitoring.metrics.groups.evaluations import EvaluationMetrics
from monitoring.metrics.groups.machine import MachineMetrics
from monitoring.metrics.groups.memory import MemoryMetrics
from monitoring.metrics.groups.models import ModelMetrics
from monitoring.metrics.groups.overload import OverloadMetrics
from monitoring.metrics.groups.predictions import PredictionMetrics
from monitoring.metrics.groups.processes import ProcessMetrics
from monitoring.metrics.groups.quality import QualityMetrics
from monitoring.metrics.groups.records import RecordMetrics
from monitoring.metrics.groups.reports import ReportMetrics
from monitoring.metrics.groups.requests import RequestMetrics
from monitoring.metrics.groups.tasks import TaskMetrics
from monitoring.metrics.groups.usage import UsageMetrics


class Metrics(
    RequestMetrics,
    PredictionMetrics,
    ModelMetrics,
    EngineMetrics,
    CanaryMetrics,
    QualityMetrics,
    EvaluationMetrics,
    OverloadMetrics,
    MemoryMetrics,
    UsageMetrics,
    RecordMetrics,
    TaskMetrics,
    ReportMetrics,
    DependencyMetrics,
    ProcessMetrics,
    MachineMetrics,
):
    """The metrics of one gateway; two instances on two registries are independent.

    The multiprocess mode of a gauge says how the values of several workers are combined (see multiprocess.py). Metrics
    that are the same for all workers are on `shown`, the registry that is exposed; by default that is `registry`. Adds
    `process_*` (CPU, memory, file descriptors, start time). Raises ValueError for a second instance on a registry.
    """

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry | None = None) -> None:
        # Otherwise each counter and histogram has one more series, which no query reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        super().__init__(registry, registry if shown is None else shown)
        ProcessCollector(registry=registry)

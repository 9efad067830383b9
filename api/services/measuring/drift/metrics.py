"""The metrics of drift."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Gauge

from api.services.measuring.drift.report import DriftReport
from model.drift.metrics import Metric
from monitoring.metrics import Metrics
from monitoring.quality.drift.store import ALL

Sample = tuple[tuple[Gauge, tuple[str, ...]], float]
"""A gauge, its labels and its value."""


def measure_drift(metrics: Metrics, report: DriftReport) -> Iterator[Sample]:
    """Yield the gauges' values for each model that has made predictions lately."""
    overall = {(each.model, each.metric) for each in report.findings if each.caller == ALL}
    for each in report.models:
        for metric in Metric:
            yield (metrics.drift_callers, (each.model, metric)), report.drifting_callers.get((each.model, metric), 0)
            yield (metrics.drift_overall, (each.model, metric)), (each.model, metric) in overall
        for measure in each.measures:
            for gauge, value in ((metrics.drift_reference, measure.reference), (metrics.drift_recent, measure.recent)):
                if value is not None:
                    yield (gauge, (each.model, measure.name)), value

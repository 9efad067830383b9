"""The base class of the groups of metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase


class MetricGroup:
    """Base of the groups. Each group creates its metrics after it has called the next group's `__init__`.

    Counters, histograms and gauges of this process belong on `registry`. Metrics that are the same for all processes of
    a gateway (ScrapedMetric) belong on `shown`, the registry that is exposed. With one process both are the same.
    """

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        """Do nothing: this is the last class that the groups call."""


def create_series(metric: MetricWrapperBase, *labels: Iterable[str]) -> None:
    """Expose the series of these label values from the start.

    Prometheus sees no increase in a series that begins above 0, so alerts and panels would miss the first events.
    """
    for values in labels:
        metric.labels(*values)

"""The base class of the groups of metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


class MetricGroup:
    """Base of the groups. Each group creates its metrics after it has called the next group's `__init__`.

    Counters, histograms and gauges of this process belong on `registry`. Metrics that are the same for all processes of
    a gateway (ScrapedMetric) belong on `shown`, the registry that is exposed. With one process both are the same.
    """

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        """Do nothing: this is the last class that the groups call."""

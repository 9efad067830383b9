"""What the groups of metrics have in common."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


class MetricGroup:
    """Base of the groups. Each creates its metrics, and lets the next group do so.

    Counters, histograms and gauges of this process belong on `registry`. What is the same for all processes of a
    gateway belongs on `shown`, the registry that is exposed (ScrapedMetric). With one process both are the same.
    """

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        """Does nothing: this is the last of the groups."""

"""Metrics whose values are read at each scrape: of the machine, of the database, or of all processes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

# Values by the values of the labels; empty while there is nothing to show.
Values = Mapping[tuple[str, ...], float]
Family = CounterMetricFamily | GaugeMetricFamily


class ScrapedMetric:
    """Shows what `read` returns, and nothing until `read` is set.

    Any worker may serve a scrape, so `read` must return the same values in all of them. It is called in the thread that
    serves the metrics.
    """

    def __init__(
        self,
        kind: type[Family],
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
        read: Callable[[], Values] = dict,
    ) -> None:
        self._kind = kind
        self._name = name
        self._documentation = documentation
        self.labels = labels
        self.read = read
        registry.register(self)

    def describe(self) -> Iterator[Family]:
        yield self._kind(self._name, self._documentation, labels=self.labels)

    def collect(self) -> Iterator[Family]:
        (family,) = self.describe()
        for labels, value in self.read().items():
            family.add_metric(labels, value)
        if family.samples:
            yield family


def single(value: float | None) -> Values:
    """Return the values of a metric without labels, empty for None."""
    return {} if value is None else {(): value}

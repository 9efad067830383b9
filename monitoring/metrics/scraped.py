"""Metrics whose values are read when the metrics are: of the machine, of the database, of all processes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

# Values by the values of the labels; none while there is nothing to show.
Values = Mapping[tuple[str, ...], float]
Family = CounterMetricFamily | GaugeMetricFamily


class ScrapedMetric:
    """Shows what `read` returns, and nothing until `read` is set.

    Any of the workers may be asked, and shows the values that it reads: they must be the same in all of them. `read` is
    called in the thread that serves the metrics.
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
    """The values of a metric without labels; none for None."""
    return {} if value is None else {(): value}

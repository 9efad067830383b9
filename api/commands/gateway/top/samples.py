"""Computes rates, means and quantiles from two scrapes of a gateway's metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


class Scrape(Struct, frozen=True):
    """The samples of one scrape by their name, and when it was made, in seconds of any clock."""

    at_s: float
    samples: Mapping[str, Sequence[tuple[Labels, float]]]

    @classmethod
    def parse(cls, text: str, at_s: float) -> Scrape:
        """Raises ValueError if the text is not in Prometheus' format."""
        samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name].append((sample.labels, sample.value))
        return cls(at_s, samples)

    def select(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        for series, value in self.samples.get(name, ()):
            if all(series.get(label) == wanted for label, wanted in labels.items()):
                yield series, value

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples, or None if there is none."""
        values = [value for _, value in self.select(name, **labels)]
        return sum(values) if values else None

    def find_state(self, name: str, states: Sequence[str]) -> str | None:
        """Return the last of `states` whose sample is 1. Several are 1 if workers are in different states."""
        current = {series.get("state") for series, value in self.select(name) if value == 1}
        return next((state for state in reversed(states) if state in current), None)


class ScrapeInterval(Struct, frozen=True):
    """The time between two scrapes."""

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        return max(self.after.at_s - self.before.at_s, 1e-9)

    def increases(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """Yield by how much each counter has grown. A counter that has become smaller was reset to 0."""
        earlier = {frozenset(series.items()): value for series, value in self.before.select(name, **labels)}
        for series, value in self.after.select(name, **labels):
            increase = value - earlier.get(frozenset(series.items()), 0.0)
            yield series, increase if increase >= 0 else value

    def rate(self, name: str, **labels: str) -> float | None:
        """Return the increase per second of all counters together, or None if there is no counter."""
        increases = [increase for _, increase in self.increases(name, **labels)]
        return sum(increases) / self.seconds if increases else None

    def rates_by(self, name: str, label: str) -> dict[str, float]:
        """Return the rates by the value of a label."""
        rates: dict[str, float] = defaultdict(float)
        for series, increase in self.increases(name):
            rates[series.get(label, "")] += increase / self.seconds
        return dict(rates)

    def mean(self, name: str, **labels: str) -> float | None:
        """Return the mean of a histogram's observations, or None if there are none."""
        count = self.rate(f"{name}_count", **labels)
        total = self.rate(f"{name}_sum", **labels)
        return total / count if count and total is not None else None

    def quantile(self, name: str, quantile: float, excluded: Mapping[str, frozenset[str]]) -> float | None:
        """Estimate a quantile of a histogram as Prometheus does: linearly within a bucket.

        Series with a label that has one of the `excluded` values are left out.
        """
        buckets: dict[float, float] = defaultdict(float)
        for series, increase in self.increases(f"{name}_bucket"):
            if not any(series.get(label) in values for label, values in excluded.items()):
                buckets[float(series["le"])] += increase
        return estimate_quantile(sorted(buckets.items()), quantile)


def estimate_quantile(buckets: Sequence[tuple[float, float]], quantile: float) -> float | None:
    """Estimate a quantile from upper bounds in ascending order and their cumulative counts; None if they are empty."""
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    rank, lower, below = quantile * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            inside = count - below
            return lower if math.isinf(bound) or not inside else lower + (bound - lower) * (rank - below) / inside
        lower, below = bound, count
    return lower

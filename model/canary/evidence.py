"""Counts that compare a candidate with production. They are additive: the verdict uses the sum over all workers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from msgspec import Struct, field

from model.sequential.bounded_mean import BoundedMean

# A candidate is slower on a request if it takes more than this multiple of the time of production.
SLOWER_FACTOR = 1.25


class Metric(StrEnum):
    DISAGREEMENT = "disagreement"
    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    ACCURACY = "accuracy"


# In disagreement and latency, the candidate cannot be better than production.
MEANS = {
    Metric.DISAGREEMENT: BoundedMean(0, 1),
    Metric.LATENCY: BoundedMean(0, 1),
    Metric.ERROR_RATE: BoundedMean(-1, 1),
    Metric.ACCURACY: BoundedMean(-1, 1),
}


class Tally(Struct, frozen=True):
    """The number of comparisons in which the candidate was worse than production, the same, or better."""

    worse: int = 0
    same: int = 0
    better: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.worse + other.worse, self.same + other.same, self.better + other.better)

    @property
    def comparisons(self) -> int:
        return self.worse + self.same + self.better

    @property
    def excess(self) -> float:
        """The share of comparisons in which the candidate was worse, minus the share in which it was better."""
        return (self.worse - self.better) / max(1, self.comparisons)

    def count_values(self) -> dict[float, int]:
        """Return how often each value occurred: 1 for worse, 0 for the same, -1 for better."""
        counts: dict[float, int] = {1: self.worse, 0: self.same, -1: self.better}
        return {value: n for value, n in counts.items() if n}


class Evidence(Struct, frozen=True):
    """The tally of each metric; metrics without comparisons may be missing."""

    tallies: Mapping[Metric, Tally] = field(default_factory=lambda: MappingProxyType({}))

    def get(self, metric: Metric) -> Tally:
        return self.tallies.get(metric, Tally())

    def __add__(self, other: Evidence) -> Evidence:
        metrics = [metric for metric in Metric if metric in self.tallies or metric in other.tallies]
        return Evidence({metric: self.get(metric) + other.get(metric) for metric in metrics})

    def to_document(self) -> dict[str, list[int]]:
        """Return the counts [worse, same, better] of each metric, ready for JSON."""
        return {metric.value: [tally.worse, tally.same, tally.better] for metric, tally in self.tallies.items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Evidence:
        """Read what `to_document` wrote. Raises ValueError."""
        return cls({Metric(name): _parse_tally(name, counts) for name, counts in document.items()})


def _parse_tally(name: str, counts: object) -> Tally:
    if not isinstance(counts, list) or len(counts) != 3 or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError(f"{name} must be a list of three counts, not {counts!r}")
    tally = Tally(*counts)
    if tally.better and MEANS[Metric(name)].lowest == 0:
        raise ValueError(f"{name} cannot count {tally.better} comparisons as better")
    return tally


class Outcome(Struct, frozen=True):
    """The result of a model for an image: the class index, or None if it failed, and the seconds of inference.

    An image that cannot be decoded is not a failure of the model and has no outcome.
    """

    class_index: int | None
    duration_s: float


def compare_on_same_image(candidate: Outcome, production: Outcome) -> Evidence:
    """Compare two outcomes for one image."""
    evidence = compare_on_different_images(candidate, production)
    if candidate.class_index is None or production.class_index is None:
        return evidence
    differs = candidate.class_index != production.class_index
    return evidence + Evidence({Metric.DISAGREEMENT: _tally(differs, False)})


def compare_on_different_images(candidate: Outcome, production: Outcome) -> Evidence:
    """Compare errors and latency of two requests. If one failed, their latency is not compared."""
    failed = candidate.class_index is None, production.class_index is None
    tallies = {Metric.ERROR_RATE: _tally(*failed)}
    if not any(failed):
        slower = candidate.duration_s > SLOWER_FACTOR * production.duration_s
        tallies[Metric.LATENCY] = _tally(slower, False)
    return Evidence(tallies)


def compare_with_label(*, candidate_correct: bool, production_correct: bool) -> Evidence:
    """Compare two predictions for an image whose true label is known."""
    return Evidence({Metric.ACCURACY: _tally(not candidate_correct, not production_correct)})


def _tally(candidate_bad: bool, production_bad: bool) -> Tally:
    """Count one comparison: the candidate is worse if only it is bad, and better if only production is."""
    if candidate_bad == production_bad:
        return Tally(same=1)
    return Tally(worse=1) if candidate_bad else Tally(better=1)

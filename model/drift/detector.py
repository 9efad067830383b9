"""Detects when the predictions of one caller, or of all, begin to differ from the reference (ADR 0060)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from model.drift.metrics import MEASURES, Change, Metric, Observations
from model.drift.reference import Reference
from model.drift.state import DriftState
from model.sequential.changes import Floats, average_wealth, compute_growth, follow_wealth

_ONE_SIDED = 0.75
"""Values moved one way if the mean position is at least this share of the increase in distance from the middle."""


class DriftRules(Struct, frozen=True):
    """The probability of a false alarm within `horizon` predictions is at most `level`, divided equally among metrics.

    `tolerance` is how far the share of a class, or the mean rank or spread of a measure, may be from the reference, in
    0..1: 0.1 is ten percentage points. A drift ends after `clear_after` consecutive predictions without an alarm.
    """

    level: float = 0.01
    horizon: int = 5000
    tolerance: float = 0.1
    clear_after: int = 500

    @property
    def log_threshold(self) -> float:
        """The logarithm of the wealth at which a metric gives an alarm."""
        return math.log(self.horizon * len(Metric) / self.level)


DEFAULT_RULES = DriftRules()


class Alarm(Struct, frozen=True):
    """A metric differs from the reference. `change` is a Change or a class. `since` is the estimated start.

    Times are in seconds since 1970. A continuing drift raises further alarms, with `is_new` false.
    """

    metric: Metric
    change: str
    since: float
    at: float
    is_new: bool


class AllClear(Struct, frozen=True):
    """The drift of a metric has ended. `at` is in seconds since 1970."""

    metric: Metric
    at: float


class DriftDetector:
    """Runs the tests that a reference defines. It has no state: callers pass the state in."""

    def __init__(self, reference: Reference, rules: DriftRules = DEFAULT_RULES) -> None:
        self.reference = reference
        self.rules = rules

    @cached_property
    def _tests(self) -> Sequence[tuple[Metric, str, float]]:
        """The metric, change and bound of each test, grouped by metric.

        A test with a bound of 1 never raises an alarm, because no mean is above it: a class with a share above 0.9
        cannot become more frequent by more than a tolerance of 0.1.
        """
        tolerance = self.rules.tolerance
        classes = zip(self.reference.classes, self.reference.shares, strict=True)
        tests = [(Metric.CLASS_MIX, name, share + tolerance) for name, share in classes]
        for metric in MEASURES:
            measure = self.reference.measures.get(metric)
            spread = 0.5 if measure is None else measure.spread
            bounds = {Change.HIGHER: 0.5 + tolerance, Change.LOWER: 0.5 + tolerance, Change.BOTH: spread + tolerance}
            tests += [(metric, change.value, bound) for change, bound in bounds.items()]
        return [(metric, change, min(bound, 1.0)) for metric, change, bound in tests]

    @cached_property
    def slices(self) -> Mapping[Metric, slice]:
        """The range of each metric's tests."""
        metrics = [metric for metric, _, _ in self._tests]
        return {
            metric: slice(metrics.index(metric), metrics.index(metric) + metrics.count(metric)) for metric in Metric
        }

    def begin(self) -> DriftState:
        """Return the state before the first prediction."""
        return DriftState.begin(len(self._tests), len(self.reference.classes))

    def decode(self, text: str, predictions: int, seen_at: float) -> DriftState:
        """Read an encoded state. Raises ValueError for the state of another reference."""
        return DriftState.decode(text, len(self._tests), len(self.reference.classes), predictions, seen_at)

    def compare(self, state: DriftState, metric: Metric, change: str) -> tuple[float | None, float | None]:
        """Return the mean of a measure in the reference and in recent predictions, or the share of the class `change`.

        An unknown value is None.
        """
        if metric is Metric.CLASS_MIX:
            index = self.reference.classes.index(change)
            return self.reference.shares[index], state.recent.get_share(index)
        measure = self.reference.measures.get(metric)
        return None if measure is None else measure.mean, state.recent.get_measure(metric)

    def rank(self, observations: Observations) -> Floats:
        """Return the ranks of the measures in the reference, [observations, measures]; NaN where unknown."""
        ranks = np.full(observations.measures.shape, np.nan)
        for index, metric in enumerate(MEASURES):
            if measure := self.reference.measures.get(metric):
                ranks[:, index] = measure.rank(observations.measures[:, index])
        return ranks

    def compute_growth(self, classes: NDArray[np.int64], ranks: Floats) -> Floats:
        """Return the growth of the wealth for each observation, as `follow_wealth` takes it."""
        columns = [(classes[:, np.newaxis] == np.arange(len(self.reference.classes))).astype(float)]
        columns += [np.stack([each, 1 - each, np.abs(2 * each - 1)], axis=1) for each in ranks.T]
        return compute_growth(np.concatenate(columns, axis=1), np.array([bound for _, _, bound in self._tests]))

    def update(self, state: DriftState, observations: Observations) -> list[Alarm | AllClear]:
        """Add observations to the state, and return the resulting events in the order of the metrics."""
        ranks, times, events = self.rank(observations), observations.times, list[Alarm | AllClear]()
        growth = self.compute_growth(observations.classes, ranks)
        paths = follow_wealth(state.wealth, growth)
        if paths.wealth.max(initial=0) < self.rules.log_threshold:  # nearly always: all metrics at once is faster
            for number, metric in enumerate(Metric):
                events += self._count_quiet(state, number, metric, times)
            if len(times):
                starts = paths.find_starts(len(times) - 1)
                state.since[:] = np.where(starts < 0, state.since, times[starts])
                state.wealth[:] = np.maximum(paths.wealth[-1], 0)
        else:
            for number, metric in enumerate(Metric):
                events += self._follow(state, number, metric, growth[:, self.slices[metric]], times)
        state.predictions += len(times)
        state.seen_at = max(state.seen_at, float(times.max(initial=0)))
        state.recent.add(observations, 2 * ranks - 1)
        return [self._name_direction(state, event) for event in events]

    def _name_direction(self, state: DriftState, event: Alarm | AllClear) -> Alarm | AllClear:
        """Replace BOTH in an alarm with one direction if the values moved only in it; that raises the spread, too."""
        measure = self.reference.measures.get(event.metric)
        if measure is None or not isinstance(event, Alarm) or event.change != Change.BOTH:
            return event
        position, distance = state.recent.get_position(event.metric)
        if abs(position) < _ONE_SIDED * (distance - measure.spread):
            return event
        return replace(event, change=(Change.HIGHER if position > 0 else Change.LOWER).value)

    def _follow(
        self, state: DriftState, number: int, metric: Metric, growth: Floats, times: NDArray[np.float64]
    ) -> Iterator[Alarm | AllClear]:
        """Follow one metric. Each time its wealth reaches the threshold, raise an alarm and reset the wealth."""
        tests, begin = self.slices[metric], 0
        wealth, since = state.wealth[tests], state.since[tests]
        while begin < len(growth):
            paths = follow_wealth(wealth, growth[begin:])
            crossing = self._find_crossing(paths.wealth)
            last = len(paths.wealth) - 1 if crossing is None else crossing
            part = times[begin : begin + last + 1]  # without an alarm, or up to the next one
            starts = paths.find_starts(last)
            since = np.where(starts < 0, since, part[starts])
            if crossing is None:
                yield from self._count_quiet(state, number, metric, part)
                wealth = np.maximum(paths.wealth[last], 0)
            else:
                yield from self._count_quiet(state, number, metric, part[:-1])
                yield self._raise_alarm(state, number, metric, paths.wealth[last], since, float(part[-1]))
                wealth, since = np.zeros_like(wealth), np.full_like(since, part[-1])
            begin += last + 1
        state.wealth[tests], state.since[tests] = wealth, since

    def _raise_alarm(
        self, state: DriftState, number: int, metric: Metric, wealth: Floats, since: Floats, at: float
    ) -> Alarm:
        """Return the alarm for the richest stake of a metric's tests, [tests, stakes], and note it in the state."""
        richest = np.unravel_index(wealth.argmax(), wealth.shape)
        change, is_new = self._tests[self.slices[metric].start + int(richest[0])][1], bool(state.quiet[number] < 0)
        state.quiet[number] = 0
        return Alarm(metric, change, float(since[richest]), at, is_new)

    def _find_crossing(self, wealth: Floats) -> int | None:
        """Return the index of the first observation at which the average wealth reaches the threshold, or None."""
        threshold = self.rules.log_threshold
        if wealth.max() < threshold:  # an average cannot exceed the maximum
            return None
        reached = np.flatnonzero(average_wealth(wealth) >= threshold)
        return int(reached[0]) if reached.size else None

    def _count_quiet(
        self, state: DriftState, number: int, metric: Metric, times: NDArray[np.float64]
    ) -> Iterator[AllClear]:
        """During a drift, count the predictions without an alarm. After enough of them, the drift ends."""
        quiet = int(state.quiet[number])
        if quiet < 0:
            return
        missing = self.rules.clear_after - quiet
        if missing <= len(times):
            state.quiet[number] = -1
            yield AllClear(metric, float(times[max(missing, 1) - 1]))
        else:
            state.quiet[number] = quiet + len(times)

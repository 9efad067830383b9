"""Rounds, in which servers are measured in turn and compared."""

from __future__ import annotations

import pytest

from bench.rounds import Measure, Sample, median_ms, rate, run_rounds, summarise
from tests.bench.samples import make_rounds, make_sample


def test_the_order_alternates() -> None:
    """Every other round measures the servers in reverse, so that no server always runs after the same one."""
    order: list[tuple[str, int]] = []

    def record(name: str) -> Measure:
        def measure(connections: int, seconds: float) -> Sample:
            assert seconds == 0.5
            order.append((name, connections))
            return make_sample(10)

        return measure

    results = run_rounds({"a": record("a"), "b": record("b")}, (1, 4), 2, 0.5)
    assert order == [("a", 1), ("b", 1), ("a", 4), ("b", 4), ("b", 1), ("a", 1), ("b", 4), ("a", 4)]
    assert {key: len(samples) for key, samples in results.samples.items()} == dict.fromkeys(
        [("a", 1), ("b", 1), ("a", 4), ("b", 4)], 2
    )


def test_ratios_are_formed_within_a_round() -> None:
    """A machine that becomes half as fast between two rounds changes the rates, but not the ratios."""
    results = make_rounds({"gateway": [90.0, 45.0, 30.0], "bare": [100.0, 50.0, 40.0]})
    assert results.ratios("gateway", "bare", 4) == [0.9, 0.9, 0.75]
    assert results.median_ratio("gateway", "bare", 4) == 0.9
    assert results.median("gateway", 4, rate) == 45.0


def test_added_latency_is_the_median_difference() -> None:
    """Added latency is the median over the rounds of the difference of the median latencies."""
    results = make_rounds({"gateway": [40.0, 20.0, 10.0], "bare": [50.0, 25.0, 20.0]})
    assert results.added_ms("gateway", "bare", 1) == pytest.approx(10.0)
    assert results.median("bare", 1, median_ms) == 40.0


def test_failed_requests_are_counted() -> None:
    """Requests without a prediction are summed over the rounds."""
    results = make_rounds({"gateway": [10.0]})
    results.samples["gateway", 4] = [make_sample(10, failed=2), make_sample(10, failed=1)]
    assert results.failed("gateway", 4) == 3


def test_a_load_is_summarised() -> None:
    """A summary counts interrupted requests and other statuses than 200 as failed."""
    from bench.load import LoadResults

    load = LoadResults([0.1, 0.2, 0.3], [0.1, 0.3], interrupted=1, seconds=2.0)
    load.statuses.update([200, 503, 200])
    assert summarise(load) == Sample(1.0, 300.0, 300.0, 2)

"""Aggregating rejections."""

from __future__ import annotations

from dataclasses import dataclass, field

from monitoring.chains.refusals import BURST, REFILL_PER_S, RefusalAggregator

Refusal = tuple[str, int]  # a name and a count


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Aggregation:
    """An aggregator of named rejections; after the burst they are counted as "others"."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.aggregator = RefusalAggregator[Refusal](
            lambda refusal: refusal[0],
            lambda refusal: ("others", ("others", refusal[1])),
            lambda first, second: (first[0], first[1] + second[1]),
            self.clock,
        )

    def add(self, count: int, name: str = "") -> None:
        for index in range(count):
            self.aggregator.add((name or f"caller {index}", 1))


def test_equal_rejections_are_merged() -> None:
    """Refusals with the same key are merged into one with a count."""
    aggregation = Aggregation()
    aggregation.add(1000, "ana")
    aggregation.add(1, "bob")
    assert aggregation.aggregator.take() == [("ana", 1000), ("bob", 1)]


def test_rejections_are_coarse_above_the_budget() -> None:
    """After a burst of distinct rejections new ones are counted together, until the budget refills."""
    aggregation = Aggregation()
    aggregation.add(5000)
    assert len(aggregation.aggregator.take()) == BURST + 1
    aggregation.aggregator.confirm()
    aggregation.add(5000)
    assert aggregation.aggregator.take() == [("others", 5000)]
    aggregation.aggregator.confirm()
    aggregation.clock.now += 3
    aggregation.add(5000)
    taken = aggregation.aggregator.take()
    assert len(taken) == 3 * REFILL_PER_S - 1  # two tokens paid for the coarse ones before
    assert sum(count for _, count in taken) == 5000


def test_the_budget_recovers_after_a_long_attack() -> None:
    """However many rejections are merged, distinct ones are recorded in detail again within seconds."""
    aggregation = Aggregation()
    aggregation.add(BURST)
    for _ in range(10_000):
        aggregation.add(1, f"caller {BURST}")
        aggregation.aggregator.take()
        aggregation.aggregator.confirm()
    aggregation.clock.now += 2 * BURST / REFILL_PER_S
    aggregation.add(10)
    assert len(aggregation.aggregator.take()) == 10


def test_unwritten_rejections_wait_in_bounded_memory() -> None:
    """Refusals that cannot be written are kept and merged with newer ones, in bounded memory however long they wait."""
    aggregation = Aggregation()
    for attempt in range(1, 20):
        aggregation.add(1000)
        assert len(aggregation.aggregator.take()) == BURST + 1
        aggregation.add(1000)
        aggregation.aggregator.put_back()
        aggregation.clock.now += 60
        waiting = aggregation.aggregator.waiting
        assert len(waiting) == BURST + 1
        assert sum(count for _, count in waiting) == attempt * 2000


def test_a_part_of_the_rejections_is_taken() -> None:
    """With a limit, the oldest rejections are taken, and the others keep waiting in their order."""
    aggregation = Aggregation()
    for caller in "abc":
        aggregation.add(1, caller)
    assert aggregation.aggregator.take(2) == [("a", 1), ("b", 1)]
    aggregation.aggregator.put_back()
    assert aggregation.aggregator.take() == [("a", 1), ("b", 1), ("c", 1)]

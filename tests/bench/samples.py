"""Made-up samples of benchmarks."""

from __future__ import annotations

from bench.rounds import CONNECTIONS, Rounds, Sample


def make_sample(rate: float, failed: int = 0) -> Sample:
    """Make a sample whose latencies follow from its rate, as on one connection."""
    return Sample(rate, 1000 / rate, 2000 / rate, failed)


def make_rounds(rates: dict[str, list[float]], connections: tuple[int, ...] = CONNECTIONS) -> Rounds:
    """Make rounds with the same rates, one for each round, for every number of connections."""
    samples = {(name, count): list(map(make_sample, of)) for name, of in rates.items() for count in connections}
    return Rounds(samples)

"""Measure several servers in turn, in rounds, so that changes in the machine's speed affect all of them alike."""

from __future__ import annotations

import asyncio
import operator
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bench.baseline import measure_baseline
from bench.load import LoadResults, drive
from monitoring.machine.cgroups import count_processors

CONNECTIONS = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: predictions per second, latencies in milliseconds, and requests without a prediction."""

    rate: float
    median_ms: float
    p99_ms: float
    failed: int = 0


Measure = Callable[[int, float], Sample]
"""Measures a server with a number of connections for a number of seconds."""
Value = Callable[[Sample], float]
rate, median_ms, p99_ms = operator.attrgetter("rate"), operator.attrgetter("median_ms"), operator.attrgetter("p99_ms")


@dataclass
class Rounds:
    """The samples of every server and number of connections, one for each round."""

    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def median(self, name: str, connections: int, value: Value) -> float:
        return statistics.median(map(value, self.samples[name, connections]))

    def failed(self, name: str, connections: int) -> int:
        return sum(sample.failed for sample in self.samples[name, connections])

    def ratios(self, name: str, reference: str, connections: int) -> list[float]:
        """Return, for each round, the throughput of a server divided by that of another."""
        return self._compare(operator.truediv, name, reference, connections, rate)

    def median_ratio(self, name: str, reference: str, connections: int) -> float:
        return statistics.median(self.ratios(name, reference, connections))

    def added_ms(self, name: str, reference: str, connections: int) -> float:
        """Return the median over the rounds of the difference of the median latencies, in milliseconds."""
        return statistics.median(self._compare(operator.sub, name, reference, connections, median_ms))

    def _compare(
        self, compare: Callable[[float, float], float], name: str, reference: str, connections: int, value: Value
    ) -> list[float]:
        return list(
            map(compare, map(value, self.samples[name, connections]), map(value, self.samples[reference, connections]))
        )


def run_rounds(
    servers: Mapping[str, Measure],
    connections: Iterable[int],
    rounds: int,
    seconds: float,
    prepare: Callable[[], object] = lambda: None,
) -> Rounds:
    """Measure all servers in each round. The order alternates, so that no server always follows the same one.

    `prepare` is called before each round.
    """
    results, connections, names = Rounds(), tuple(connections), list(servers)
    for number in range(rounds):
        prepare()
        for count in connections:
            for name in names if number % 2 == 0 else reversed(names):
                results.samples[name, count].append(servers[name](count, seconds))
    return results


def measure_server(port: int, request: Callable[[], bytes]) -> Measure:
    """Return a measure of the server on a loopback port; `request` builds a request, with a fresh credential if any."""

    def measure(connections: int, seconds: float) -> Sample:
        return summarise(asyncio.run(drive(port, request(), connections, seconds)))

    return measure


def summarise(load: LoadResults) -> Sample:
    failed = len(load.durations) - load.statuses[200] + load.interrupted
    return Sample(load.rate, load.percentile_ms(50), load.percentile_ms(99), failed)


def measure_bare(model_url: str, image: bytes) -> Measure:
    """Return a measure of decoding and inference without a server, in a process per connection, up to one per core."""

    def measure(connections: int, seconds: float) -> Sample:
        baseline = measure_baseline(model_url, image, min(connections, count_processors()), seconds)
        return Sample(baseline.rate, baseline.median_ms, baseline.p99_ms)

    return measure

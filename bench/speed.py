"""Compare a gateway that has all features on with a baseline without HTTP, and with a gateway without the ledger.

    python -m bench.speed [--seconds 4] [--rounds 5] [--workers 1]

The three are measured in turn in every round, so that changes in the machine's speed affect all of them. Results are
medians over the rounds; ratios and differences are computed within each round first. The gateway without the ledger
still counts quotas.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.baseline import measure_baseline
from bench.load import LoadResults, build_request, drive
from monitoring.cgroups import count_processors
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST, MODEL_URL

CONNECTIONS = (1, 4, 16)


@dataclass
class Series:
    """The rates and latencies of every round for one number of connections."""

    rates: list[float] = field(default_factory=list)
    medians_ms: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def add(self, results: LoadResults) -> None:
        self.rates.append(results.rate)
        self.medians_ms.append(results.percentile_ms(50))
        self.p99s_ms.append(results.percentile_ms(99))
        self.failed += len(results.durations) - results.statuses[200] + results.interrupted

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


@dataclass
class Comparison:
    """The three series of one number of connections."""

    baseline: Series = field(default_factory=Series)
    gateway: Series = field(default_factory=Series)
    without_ledger: Series = field(default_factory=Series)


def send_load(gateway: Gateway, connections: int, seconds: float) -> LoadResults:
    return asyncio.run(drive(gateway.port, build_request(gateway.token(), FOREST), connections, seconds))


def measure(seconds: float, rounds: int, workers: int) -> None:
    """Print one line for each number of connections."""
    comparisons: dict[int, Comparison] = defaultdict(Comparison)
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway(WEB_CONCURRENCY=str(workers)))
        without_ledger = stack.enter_context(running_gateway(WEB_CONCURRENCY=str(workers), LEDGER__ENABLED="false"))
        idle_bytes = gateway.resident_bytes()
        for warmed_up in (gateway, without_ledger):
            send_load(warmed_up, 4, 1.0)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                comparison = comparisons[connections]
                _add_baseline(comparison.baseline, connections, seconds)
                comparison.gateway.add(send_load(gateway, connections, seconds))
                comparison.without_ledger.add(send_load(without_ledger, connections, seconds))
        loaded_bytes = gateway.resident_bytes()
    print(
        f"{'connections':>12}{'baseline':>9}{'gateway':>9}{'ratio':>7}{'added':>11}{'p99':>9}{'failed':>8}"
        "   without the ledger"
    )
    for connections, comparison in comparisons.items():
        print(_format_line(connections, comparison))
    memory = f"{idle_bytes / 1e6:.0f} MB when idle, {loaded_bytes / 1e6:.0f} MB after the load"
    print(f"ready after {gateway.ready_s:.2f} s; {memory}")


def _add_baseline(series: Series, connections: int, seconds: float) -> None:
    processes = min(connections, count_processors())
    baseline = measure_baseline(MODEL_URL, FOREST, processes, seconds)
    series.rates.append(baseline.rate)
    series.medians_ms.append(baseline.median_ms)


def _format_line(connections: int, comparison: Comparison) -> str:
    baseline, gateway, without = comparison.baseline, comparison.gateway, comparison.without_ledger
    ratio = _median_over_rounds(operator.truediv, gateway.rates, baseline.rates)
    cost = 1 - _median_over_rounds(operator.truediv, gateway.rates, without.rates)
    ledger = f"{without.rate:>6.1f}/s, ledger costs {cost:>5.1%}"
    added = ""
    if connections == 1:
        added = f"{_median_over_rounds(operator.sub, gateway.medians_ms, baseline.medians_ms):.1f} ms"
        ledger += f" and {_median_over_rounds(operator.sub, gateway.medians_ms, without.medians_ms):.1f} ms"
    return (
        f"{connections:>12}{baseline.rate:>7.1f}/s{gateway.rate:>7.1f}/s{ratio:>7.2f}{added:>11}"
        f"{statistics.median(gateway.p99s_ms):>6.0f} ms{gateway.failed:>8}   {ledger}"
    )


def _median_over_rounds(
    compare: Callable[[float, float], float], results: list[float], reference: list[float]
) -> float:
    """Compare within each round, where the machine's speed is similar, and return the median."""
    return statistics.median(map(compare, results, reference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    measure(options.seconds, options.rounds, options.workers)


if __name__ == "__main__":
    main()

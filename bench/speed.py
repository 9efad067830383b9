"""The gateway with everything on, beside what the same cores do without one, and beside itself without the ledger.

    python -m bench.speed [--seconds 4] [--rounds 5] [--workers 1]

All in one run, the phases in turns, so that what else the machine does falls on all of them alike; a figure is the
median over the rounds, of the ledger's cost that of each round's difference. Without the ledger quotas are counted on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import bare
from bench.load import Load, build_request, drive
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST, MODEL_URL

CONNECTIONS = (1, 4, 16)


@dataclass
class Phase:
    """Rates and median latencies, one of each a round."""

    rates: list[float] = field(default_factory=list)
    medians_ms: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def add(self, load: Load) -> None:
        self.rates.append(load.rate)
        self.medians_ms.append(load.percentile_ms(50))
        self.p99s_ms.append(load.percentile_ms(99))
        self.failed += len(load.durations) - load.statuses[200] + load.cut

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def load(gateway: Gateway, connections: int, seconds: float) -> Load:
    return asyncio.run(drive(gateway.port, build_request(gateway.token(), FOREST), connections, seconds))


def measure(seconds: float, rounds: int, workers: int) -> None:
    """Print one line a number of connections."""
    phases: dict[tuple[str, int], Phase] = defaultdict(Phase)
    cores = len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        served = stack.enter_context(running_gateway(WEB_CONCURRENCY=str(workers)))
        without = stack.enter_context(running_gateway(WEB_CONCURRENCY=str(workers), LEDGER__ENABLED="false"))
        at_rest = served.resident_bytes() / 1e6
        for gateway in (served, without):
            load(gateway, 4, 1.0)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                alone = bare.measure(MODEL_URL, FOREST, min(connections, cores), seconds)
                phases["bare", connections].rates.append(alone.rate)
                phases["bare", connections].medians_ms.append(alone.median_ms)
                phases["gateway", connections].add(load(served, connections, seconds))
                phases["without", connections].add(load(without, connections, seconds))
        under_load = served.resident_bytes() / 1e6
    print(f"{'':>12}{'bare':>9}{'gateway':>9}{'b/a':>7}{'over bare':>11}{'p99':>9}{'failed':>8}   without the ledger")
    for connections in CONNECTIONS:
        print(_line(phases, connections))
    print(f"ready after {served.ready_s:.2f} s; {at_rest:.0f} MB at rest, {under_load:.0f} MB after all that")


def _line(phases: dict[tuple[str, int], Phase], connections: int) -> str:
    alone, gateway, without = (phases[name, connections] for name in ("bare", "gateway", "without"))
    over = f"{_median(float.__sub__, gateway.medians_ms, alone.medians_ms):>8.1f} ms" if connections == 1 else " " * 11
    cost = 1 - _median(float.__truediv__, gateway.rates, without.rates)
    ledger = f"{without.rate:>6.1f}/s, ledger costs {cost:>5.1%}"
    if connections == 1:
        ledger += f" and {_median(float.__sub__, gateway.medians_ms, without.medians_ms):.1f} ms"
    ratio = _median(float.__truediv__, gateway.rates, alone.rates)
    return (
        f"{connections:>10}  {alone.rate:>7.1f}/s{gateway.rate:>7.1f}/s{ratio:>7.2f}{over}"
        f"{statistics.median(gateway.p99s_ms):>6.0f} ms{gateway.failed:>8}   {ledger}"
    )


def _median(compare: Callable[[float, float], float], some: list[float], others: list[float]) -> float:
    """Of the comparisons within each round: what the machine does from one to the next falls out."""
    return statistics.median(map(compare, some, others))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    measure(options.seconds, options.rounds, options.workers)


if __name__ == "__main__":
    main()

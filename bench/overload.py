"""Offer a gateway several times the load that it can serve, and measure the latency of the requests that it admits.

    python -m bench.overload [--runs 6] [--seconds 10] [--times 10]

Prints the latency of admitted requests as a multiple of the latency of a single caller, for the median and the 99th
percentile, in each run and as the median over the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import time
from dataclasses import dataclass, field

import httpx

from bench.gateways import measured_gateway
from bench.load import LoadResults, build_request, drive
from tests.support.gateway import Gateway
from tests.support.paths import FOREST

CONNECTIONS, RUNS, RUN_S, TIMES = 100, 6, 10.0, 10.0


@dataclass
class Watch:
    """Measurements during the load: durations of /livez in milliseconds, and resident memory in megabytes."""

    livez_ms: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    async def measure(self, gateway: Gateway, seconds: float) -> None:
        until = time.perf_counter() + seconds
        async with httpx.AsyncClient(base_url=gateway.base_url) as client:
            await client.get("/livez")
            while (began := time.perf_counter()) < until:
                (await client.get("/livez")).raise_for_status()
                self.livez_ms.append((time.perf_counter() - began) * 1000)
                self.megabytes.append(gateway.resident_bytes() / 1e6)
                await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Overload:
    """The results of one caller, of eight, and of a hundred that offer several times the throughput of the eight."""

    alone: LoadResults
    capacity: LoadResults
    load: LoadResults
    watch: Watch

    def factor(self, percentile: float) -> float:
        """Return a percentile of the latency of admitted requests, divided by that of the single caller."""
        return self.load.percentile_ms(percentile) / self.alone.percentile_ms(percentile)


def measure_overload(gateway: Gateway, seconds: float, times: float) -> Overload:
    """Offer `times` times the capacity for `seconds`, after shorter runs that measure the gateway without overload."""
    request = build_request(gateway.token(), FOREST)

    async def load_and_watch(connections: int, seconds: float, rate: float = math.inf) -> tuple[LoadResults, Watch]:
        watch = Watch()
        loading = drive(gateway.port, request, connections, seconds, reconnect=True, rate=rate)
        load, _ = await asyncio.gather(loading, watch.measure(gateway, seconds))
        return load, watch

    asyncio.run(load_and_watch(4, seconds / 10))
    alone, _ = asyncio.run(load_and_watch(1, seconds / 2))
    capacity, _ = asyncio.run(load_and_watch(8, seconds / 4))
    load, watch = asyncio.run(load_and_watch(CONNECTIONS, seconds, times * capacity.rate))
    return Overload(alone, capacity, load, watch)


def measure_factor(gateway: Gateway, runs: int, seconds: float, times: float = TIMES) -> float:
    """Return the median over several runs of the factor of the 99th percentile, and print the factors of all runs."""
    overloads = [measure_overload(gateway, seconds, times) for _ in range(runs)]
    print(f"latency at {times:.0f} times capacity, as a multiple of that of one caller:")
    for percentile in (50, 99):
        factors = [each.factor(percentile) for each in overloads]
        shown = " ".join(f"{factor:.2f}" for factor in factors)
        print(f"  p{percentile}  {shown}; median {statistics.median(factors):.2f}")
    return statistics.median(each.factor(99) for each in overloads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=RUN_S)
    parser.add_argument("--times", type=float, default=TIMES)
    options = parser.parse_args()
    with measured_gateway() as gateway:
        measure_factor(gateway, options.runs, options.seconds, options.times)


if __name__ == "__main__":
    main()

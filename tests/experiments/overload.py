"""Send a gateway ten times what it can serve: admitted requests keep a short latency, the rest are rejected at once.

    python -m tests.experiments.overload [--seconds 20] [--times 10]

Exit status 0 when the 99th percentile of admitted requests stays under three times that of a single caller, every other
response is a 503 with Retry-After, memory stays flat and /livez responds within 50 ms; 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field

import httpx

from bench.load import LoadResults, build_request, drive
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST

CONNECTIONS = 100
MOST_TIMES_P99, MOST_LIVEZ_MS, MOST_GROWTH_MB = 3.0, 50.0, 20.0


@dataclass
class Watch:
    """Measurements beside the load: durations of /livez in milliseconds, and resident memory in megabytes."""

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


async def load_and_watch(gateway: Gateway, connections: int, seconds: float, rate: float) -> tuple[LoadResults, Watch]:
    watch = Watch()
    loading = drive(
        gateway.port, build_request(gateway.token(), FOREST), connections, seconds, reconnect=True, rate=rate
    )
    load, _ = await asyncio.gather(loading, watch.measure(gateway, seconds))
    return load, watch


def run(seconds: float, times: float) -> list[str]:
    """Print the measurements and return the aims that were missed."""
    with running_gateway() as gateway:
        asyncio.run(load_and_watch(gateway, 4, 2, float("inf")))
        alone, _ = asyncio.run(load_and_watch(gateway, 1, seconds / 2, float("inf")))
        capacity, _ = asyncio.run(load_and_watch(gateway, 8, seconds / 4, float("inf")))
        load, watch = asyncio.run(load_and_watch(gateway, CONNECTIONS, seconds, times * capacity.rate))
        readiness = gateway.get("/readyz").status_code
    offered = len(load.durations) / load.seconds
    ratio = load.percentile_ms(99) / alone.percentile_ms(99)
    growth = max(watch.megabytes) - watch.megabytes[0]
    livez = sorted(watch.livez_ms)
    p50, p99 = load.percentile_ms(50), load.percentile_ms(99)
    print(f"alone:    {alone.rate:6.1f}/s, p99 {alone.percentile_ms(99):.0f} ms; capacity {capacity.rate:.1f}/s")
    outcome = f"{dict(load.statuses)}, {load.interrupted} interrupted"
    print(f"overload: {offered:6.1f}/s, {offered / capacity.rate:.1f} times; {outcome}")
    print(f"admitted: {load.rate:6.1f}/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, {ratio:.2f} times alone")
    print(f"/livez:   median {livez[len(livez) // 2]:.1f} ms, slowest {livez[-1]:.1f} ms; {growth:.1f} MB more")
    missed = {
        f"admitted requests took {ratio:.2f} times as long as alone": ratio > MOST_TIMES_P99,
        f"/livez took {livez[-1]:.0f} ms": livez[-1] > MOST_LIVEZ_MS,
        f"memory grew by {growth:.0f} MB": growth > MOST_GROWTH_MB,
        f"statuses {dict(load.statuses)}": not set(load.statuses) <= {200, 503} or load.interrupted > 0,
        "the gateway was not ready afterwards": readiness != 200,
    }
    return [aim for aim, is_missed in missed.items() if is_missed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--times", type=float, default=10)
    options = parser.parse_args()
    missed = run(options.seconds, options.times)
    for aim in missed:
        print(f"missed: {aim}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

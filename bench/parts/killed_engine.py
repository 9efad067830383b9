"""Kill one of two Tritons behind a gateway while many connections predict without pause.

    python -m bench.parts.killed_engine [--seconds 20] [--connections 16]

Exit status 0 when no request failed, the engines had shared the load at 45 to 55 %, and the 99th percentile of the
latency was back under three times its earlier value at most two seconds after the kill; otherwise 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from statistics import quantiles

import httpx

from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway
from tests.support.paths import FOREST
from tests.support.servers.engines.running import MODEL, RunningEngine, running_engines

WARM_UP_S = 5.0
MAX_FACTOR, MAX_DISTURBED_S = 3.0, 2.0
MIN_SHARE, MAX_SHARE = 0.45, 0.55
_WINDOW_S = 0.5


@dataclass
class Results:
    """`requests` has the start and the latency of each request, in seconds; `killed_at` is on the same clock."""

    requests: list[tuple[float, float]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    shares: list[float] = field(default_factory=list)
    killed_at: float = 0.0

    def normal(self) -> list[float]:
        return [latency for started, latency in self.requests if started + latency < self.killed_at]

    def disturbed_s(self, limit_s: float) -> float:
        """Return how long after the kill the last window ended in which the 99th percentile was over the limit."""
        later = [(started - self.killed_at, latency) for started, latency in self.requests if started > self.killed_at]
        windows = range(int(max(start for start, _ in later) / _WINDOW_S) + 1)
        slow = [
            (index + 1) * _WINDOW_S
            for index in windows
            if find_p99([latency for start, latency in later if index == int(start / _WINDOW_S)]) > limit_s
        ]
        return max(slow, default=0.0)


def find_p99(latencies: Sequence[float]) -> float:
    """Return the 99th percentile, or the largest of fewer than two values; 0 for none."""
    return quantiles(latencies, n=100, method="inclusive")[98] if len(latencies) > 1 else max(latencies, default=0.0)


async def call(client: httpx.AsyncClient, results: Results, until: float) -> None:
    while (started := time.monotonic()) < until:
        response = await client.post("/v1/predictions", files={"file": FOREST.read_bytes()})
        results.requests.append((started, time.monotonic() - started))
        if response.status_code != HTTPStatus.OK:
            results.failures[f"{response.status_code} {response.json().get('code')}"] += 1


def count(gateway: Gateway, engine: RunningEngine) -> float:
    return gateway.metric(f'atalaya_engine_request_seconds_count{{endpoint="{engine.endpoint}"}}')


async def load(gateway: Gateway, engines: Sequence[RunningEngine], connections: int, seconds: float) -> Results:
    results = Results()
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    limits = httpx.Limits(max_connections=connections)
    url = f"http://127.0.0.1:{gateway.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=TIMEOUT_S) as client:
        warm_up = time.monotonic() + WARM_UP_S
        await asyncio.gather(*(call(client, Results(), warm_up) for _ in range(connections)))
        before = [count(gateway, engine) for engine in engines]
        until = time.monotonic() + 2 * seconds
        callers = asyncio.gather(*(call(client, results, until) for _ in range(connections)))
        await asyncio.sleep(seconds)
        sent = [count(gateway, engine) - earlier for engine, earlier in zip(engines, before, strict=True)]
        results.shares = [each / sum(sent) for each in sent]
        results.killed_at = time.monotonic()
        engines[1].kill()
        await callers
    return results


def report(results: Results) -> bool:
    """Print the results; return whether they are within the limits."""
    normal = find_p99(results.normal())
    disturbed = results.disturbed_s(MAX_FACTOR * normal)
    worst = max(latency for started, latency in results.requests if started + latency > results.killed_at)
    print(f"requests            {len(results.requests)}, failed {dict(results.failures) or 0}")
    print(f"shares              {', '.join(f'{share:.1%}' for share in results.shares)}")
    print(f"p99 before          {normal * 1000:.0f} ms; longest after the kill {worst * 1000:.0f} ms")
    print(f"p99 over {MAX_FACTOR:.0f} times    until {disturbed:.1f} s after the kill")
    even = all(MIN_SHARE <= share <= MAX_SHARE for share in results.shares)
    return not results.failures and even and disturbed <= MAX_DISTURBED_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="before the kill, and after it")
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="atalaya-engines-") as folder,
        running_engines(Path(folder), "triton", "triton") as engines,
        running_gateway(
            None, MODEL__URL=f"oip+http://{','.join(each.endpoint for each in engines)}/{MODEL}"
        ) as gateway,
    ):
        results = asyncio.run(load(gateway, engines, arguments.connections, arguments.seconds))
    return 0 if report(results) else 1


if __name__ == "__main__":
    sys.exit(main())

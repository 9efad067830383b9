"""Check that rate limits are exact across processes, and that the event loop stays free while Redis does not respond.

    python -m tests.experiments.limits [--rounds 5]

Prints one line for each experiment. Exit status 0 if four processes together allow exactly what one would, and no
outage of Redis blocked the event loop; 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from limits import parse
from prometheus_client import CollectorRegistry

from api.rate_limits.fallback import make_windows
from api.rate_limits.machine_windows import MachineWindows
from api.rate_limits.redis_windows import REPLY_LIMIT_S, RedisWindows
from api.rate_limits.windows import Windows
from api.services.background.activity import Activity
from api.settings import Settings
from monitoring.metrics import Metrics
from tests.support import redis
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S, wait_until_async

PROCESSES, REQUESTS, AT_ONCE = 4, 10_000, 50
ALLOWED = parse("4000/hour")
# The event loop may be late by 50 ms, or, on a slow machine, by three times its delay while Redis responds.
MAX_LAG_S, MAX_LAG_TIMES_HEALTHY = 0.05, 3.0
# A host that takes the processor away delays one measurement; work that blocks the event loop delays each.
MEASUREMENTS = 3
TICK_S = 0.002


async def count(store: str) -> None:
    """Run as one of the processes: once standard input has a line, count a share of the requests in Redis or a file."""
    windows = RedisWindows(store) if store.startswith("redis") else MachineWindows(Path(store))
    await windows.open()
    print("open", flush=True)
    sys.stdin.readline()
    limit_results = []
    for _ in range(REQUESTS // PROCESSES // AT_ONCE):
        limit_results += await asyncio.gather(*(windows.hit(ALLOWED, "predict", "ana") for _ in range(AT_ONCE)))
    await windows.close()
    print(sum(limit_result.allowed for limit_result in limit_results))


def allowed_by_processes(store: str) -> int:
    """Return how many of the requests all processes together allow."""
    command = [sys.executable, "-m", "tests.experiments.limits", "--count", store]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    return sum(int(worker.communicate(timeout=PATIENCE_S)[0]) for worker in workers)


def waited_for_a_core_s() -> float:
    """Return how long this thread has waited for a processor; 0 if the system does not count that."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


async def worst_lag_s(windows: Windows) -> float:
    """Return the longest delay that the event loop's own work causes during requests for 1.5 times the timeout."""
    worst, ended = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal worst
        while not ended.is_set():
            began = time.perf_counter() - waited_for_a_core_s()
            await asyncio.sleep(TICK_S)
            worst = max(worst, time.perf_counter() - waited_for_a_core_s() - began - TICK_S)

    ticking = asyncio.create_task(tick())
    until = time.monotonic() + 1.5 * REPLY_LIMIT_S
    while time.monotonic() < until:
        await asyncio.gather(*(windows.hit(ALLOWED, "predict", "bob") for _ in range(AT_ONCE)))
        await asyncio.sleep(0.01)
    ended.set()
    await ticking
    return worst


@dataclass(frozen=True)
class Outage:
    """Event loop delays while Redis responds and while it does not, and how long recovery took afterwards."""

    healthy_lag_s: float
    lag_s: float
    recovery_s: float = 0.0

    @property
    def is_harmless(self) -> bool:
        return self.lag_s < max(MAX_LAG_S, MAX_LAG_TIMES_HEALTHY * self.healthy_lag_s)


async def measure_outage(windows: Windows, healthy_lag_s: float) -> Outage:
    """Measure the delays while Redis does not respond, up to MEASUREMENTS times until they are harmless."""
    for _ in range(MEASUREMENTS):
        measured = Outage(healthy_lag_s, await worst_lag_s(windows))
        if measured.is_harmless:
            break
    return measured


async def outage(server: redis.Redis, how: signal.Signals) -> Outage:
    """Suspend or kill the server during requests, then resume or restart it."""
    windows = make_windows(Settings(redis_url=server.url), Metrics(CollectorRegistry()), Activity(None))
    await windows.open()
    assert not windows.reduced
    healthy_lag_s = await worst_lag_s(windows)
    server.send(how)
    measured = await measure_outage(windows, healthy_lag_s)
    assert windows.reduced
    if how is signal.SIGKILL:
        server.start()
    else:
        server.send(signal.SIGCONT)
    recovery_s = await wait_until_async(lambda: not windows.reduced)  # attempted four times a second
    await windows.close()
    return replace(measured, recovery_s=recovery_s)


def experiments(folder: Path, rounds: int) -> Iterator[tuple[str, str, bool]]:
    """Yield name, result and success of each experiment."""

    def exact(store: str) -> tuple[str, bool]:
        began = time.monotonic()
        allowed = allowed_by_processes(store)
        took_s = time.monotonic() - began
        return f"{allowed} of {ALLOWED.amount} allowed, in {took_s:.1f} s", allowed == ALLOWED.amount

    def without(how: signal.Signals) -> tuple[str, bool]:
        outages = [asyncio.run(outage(server, how)) for _ in range(rounds)]
        lag_s, recovery_s = max(one.lag_s for one in outages), max(one.recovery_s for one in outages)
        result = f"event loop late by {lag_s * 1000:.0f} ms at most, recovered within {recovery_s:.1f} s"
        return result, all(one.is_harmless for one in outages)

    with redis.running(folder) as server:
        attempts: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
            (f"Redis: {PROCESSES} processes, {REQUESTS} requests", lambda: exact(server.url)),
            (f"One machine: {PROCESSES} processes, {REQUESTS} requests", lambda: exact(str(folder / "limits.db"))),
            (f"Redis hung, {rounds} times", lambda: without(signal.SIGSTOP)),
            (f"Redis killed, {rounds} times", lambda: without(signal.SIGKILL)),
        ]
        for name, attempt in attempts:
            yield name, *attempt()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        asyncio.run(count(options.count))
        return 0
    good = True
    with tempfile.TemporaryDirectory(prefix="atalaya-limits-") as folder, Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        for name, result, success in experiments(Path(folder), options.rounds):
            print(f"{name:<48}{result}   {'ok' if success else 'FAILED'}", flush=True)
            good = good and success
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

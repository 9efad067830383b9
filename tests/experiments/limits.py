"""Whether rate limits hold over processes, and what becomes of requests while Redis is away.

    python -m tests.experiments.limits [--rounds 5]

Prints a line an experiment. Exit status 0 when four processes let through exactly what one would, and the event loop
was never held up while Redis hung or was dead; 1 when not.
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
from pathlib import Path

import structlog
from limits import parse
from prometheus_client import CollectorRegistry

from api.rate_limits.fallback import make_windows
from api.rate_limits.machine_windows import MachineWindows
from api.rate_limits.redis_windows import REPLY_LIMIT_S, RedisWindows
from api.rate_limits.windows import Windows
from api.settings import Settings
from monitoring.metrics import Metrics
from tests.support import redis

PROCESSES, REQUESTS, AT_ONCE = 4, 10_000, 50
ALLOWED = parse("4000/hour")
LONGEST_LAG_S, LONGEST_HEALING_S = 0.05, 3.0
TICK_S = 0.002


async def count(place: str) -> None:
    """One of the processes: its share of the requests at a Redis or in a file, once it is told to begin."""
    windows = RedisWindows(place) if place.startswith("redis") else MachineWindows(Path(place))
    await windows.open()
    print("open", flush=True)
    sys.stdin.readline()
    limit_results = []
    for _ in range(REQUESTS // PROCESSES // AT_ONCE):
        limit_results += await asyncio.gather(*(windows.hit(ALLOWED, "predict", "ana") for _ in range(AT_ONCE)))
    await windows.close()
    print(sum(limit_result.allowed for limit_result in limit_results))


def allowed_by_processes(place: str) -> int:
    """How many of the requests pass, in all processes together."""
    command = [sys.executable, "-m", "tests.experiments.limits", "--count", place]
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    return sum(int(worker.communicate(timeout=60)[0]) for worker in workers)


def waited_for_a_core_s() -> float:
    """How long this thread could have run, but others had the cores; 0 where the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


async def worst_lag_s(windows: Windows) -> float:
    """How late the event loop was by its own doing, at most, while requests came and the store was found to be away."""
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


async def away(server: redis.Redis, how: signal.Signals) -> tuple[float, float]:
    """The worst lag while the server is away, and how long after it is back the limits are whole, in seconds."""
    windows = make_windows(Settings(_env_file=None, redis_url=server.url), Metrics(CollectorRegistry()))
    await windows.open()
    assert not windows.reduced
    server.send(how)
    lag_s = await worst_lag_s(windows)
    assert windows.reduced
    if how is signal.SIGKILL:
        server.start()
    else:
        server.send(signal.SIGCONT)
    back = time.monotonic()
    while windows.reduced and time.monotonic() < back + 2 * LONGEST_HEALING_S:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await windows.close()
    return lag_s, time.monotonic() - back


def experiments(folder: Path, rounds: int) -> Iterator[tuple[str, str, bool]]:
    """What is tried, what came of it, and whether that is good."""

    def exact(place: str) -> tuple[str, bool]:
        began = time.monotonic()
        allowed = allowed_by_processes(place)
        took_s = time.monotonic() - began
        return f"{allowed} of {ALLOWED.amount} allowed, in {took_s:.1f} s", allowed == ALLOWED.amount

    def without(how: signal.Signals) -> tuple[str, bool]:
        seen = [asyncio.run(away(server, how)) for _ in range(rounds)]
        lag_s, healed_s = max(lag for lag, _ in seen), max(healed for _, healed in seen)
        told = f"event loop late by {lag_s * 1000:.0f} ms at most, whole again within {healed_s:.1f} s"
        return told, lag_s < LONGEST_LAG_S and healed_s < LONGEST_HEALING_S

    with redis.running(folder) as server:
        tries: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
            (f"Redis: {PROCESSES} processes, {REQUESTS} requests", lambda: exact(server.url)),
            (f"One machine: {PROCESSES} processes, {REQUESTS} requests", lambda: exact(str(folder / "limits.db"))),
            (f"Redis hung, {rounds} times", lambda: without(signal.SIGSTOP)),
            (f"Redis killed, {rounds} times", lambda: without(signal.SIGKILL)),
        ]
        for name, attempt in tries:
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
        for name, told, fine in experiments(Path(folder), options.rounds):
            print(f"{name:<48}{told}   {'ok' if fine else 'FAILED'}", flush=True)
            good = good and fine
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Promote two versions of the model in turn while a gateway serves many connections.

    python -m tests.experiments.hot_swap [--moves 200] [--connections 16] [--workers 2] [--unprepared]

The versions have the same graph, and the gateway serves its prepared copy, as it does once it has built one. With
--unprepared it opens the artefact's graph, whose small blocks leave more fragments of pages behind (ADR 0058).

Exit status 0 if every request succeeded, no response or ledger entry had parts of two versions, all workers followed
every move, and no process of the gateway needs over 10 MB more at rest than before; 1 otherwise. The limit applies to
each process, because earlier versions leave fragments of pages between the blocks of each process.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from api.services.background.idle_memory import IDLE_S
from tests.model.registry.registered_models import ModelRegistry, find_mixture, find_other, make_registry, read_entries
from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway
from tests.support.linux.processes import proportional_bytes
from tests.support.paths import FOREST
from tests.support.polling import wait_until

INFERENCE_THREADS = 2  # of all workers together
VERSIONS = 2
MAX_GROWTH_BYTES = 10_000_000
SWITCHED = 'atalaya_model_loads_total{outcome="switched"}'
WARM_UP_REQUESTS = 300
_RELEASE_S = IDLE_S + 10.0  # by then both workers have returned the memory that only predictions need
_MEMORY_SAMPLES = 20  # of the memory, a tenth of a second apart: freed pages are returned with a delay


@dataclass
class Results:
    """`bodies` are the responses by the id of the prediction, `move_s` the seconds until all workers had followed.

    `before` and `after` are the bytes of memory of each process at rest.
    """

    failures: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, Any] = field(default_factory=dict)
    move_s: list[float] = field(default_factory=list)
    mixtures: list[str] = field(default_factory=list)
    before: Mapping[int, int] = field(default_factory=dict)
    after: Mapping[int, int] = field(default_factory=dict)

    def describe_failures(self) -> list[str]:
        served = Counter(body["model"]["version"] for body in self.bodies.values())
        grown = max(self.after[process] - self.before[process] for process in self.before)
        found = {
            f"failed requests: {dict(self.failures)}": bool(self.failures),
            f"{len(self.mixtures)} mixed responses, such as: {self.mixtures[:1]}": bool(self.mixtures),
            f"only these versions served: {dict(served)}": len(served) < VERSIONS,
            f"the memory of a process at rest grew by {grown / 1e6:.1f} MB": grown > MAX_GROWTH_BYTES,
        }
        return [failure for failure, is_true in found.items() if is_true]

    def show(self) -> None:
        served = Counter(body["model"]["version"] for body in self.bodies.values())
        print(f"{len(self.bodies)} predictions by version {dict(served)}, {self.failures.total()} failed requests")
        print(f"{len(self.mixtures)} mixed responses")
        ordered = sorted(self.move_s)
        print(f"{len(ordered)} moves, followed after {ordered[len(ordered) // 2]:.1f} s (median), {ordered[-1]:.1f} s")
        for name, memory in (("before", self.before), ("after", self.after)):
            processes = " + ".join(f"{size / 1e6:.1f}" for size in memory.values())
            print(f"memory at rest {name}: {processes} = {sum(memory.values()) / 1e6:.1f} MB")


async def send_repeatedly(gateway: Gateway, results: Results, ended: asyncio.Event) -> None:
    """Send the same image again and again, each time on another connection so that both workers get requests."""
    image, headers = FOREST.read_bytes(), {"Content-Type": "image/jpeg", "Connection": "close"}
    auth = gateway.fresh_token()
    async with httpx.AsyncClient(base_url=gateway.base_url, auth=auth, headers=headers, timeout=TIMEOUT_S) as client:
        while not ended.is_set():
            try:
                response = await client.post("/v1/predictions", content=image)
            except httpx.TransportError as error:
                results.failures[type(error).__name__] += 1
                continue
            if response.status_code == HTTPStatus.OK:
                body = response.json()
                results.bodies[body["id"]] = body
            else:
                results.failures[f"{response.status_code} {response.json()['code']}"] += 1


def has_switched(gateway: Gateway, expected: float) -> bool:
    return gateway.metric(SWITCHED) == expected


def move_repeatedly(gateway: Gateway, registry: ModelRegistry, results: Results, moves: int) -> None:
    """Promote the other version and wait until all workers have followed, `moves` times."""
    workers = len(gateway.workers()) or 1
    for _ in range(moves):
        started, expected = time.monotonic(), gateway.metric(SWITCHED) + workers
        registry.promote(find_other(registry.promoted))
        wait_until(partial(has_switched, gateway, expected), message=gateway.log)
        results.move_s.append(time.monotonic() - started)


async def load(gateway: Gateway, registry: ModelRegistry, results: Results, moves: int, connections: int) -> None:
    ended, warm = asyncio.Event(), len(results.bodies) + WARM_UP_REQUESTS
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(send_repeatedly(gateway, results, ended))
        await asyncio.to_thread(wait_until, lambda: len(results.bodies) > warm)
        await asyncio.to_thread(move_repeatedly, gateway, registry, results, moves)
        ended.set()


def measure_memory(gateway: Gateway) -> Mapping[int, int]:
    """Return the least memory of the parent and of each worker over two seconds at rest."""
    time.sleep(_RELEASE_S)
    samples: dict[int, list[int]] = {process: [] for process in [gateway.pid, *gateway.workers()]}
    for _ in range(_MEMORY_SAMPLES):
        for process, sizes in samples.items():
            sizes.append(proportional_bytes(process))
        time.sleep(0.1)
    return {process: min(sizes) for process, sizes in samples.items()}


def run(moves: int, connections: int, workers: int, *, prepared: bool) -> Results:
    results = Results()
    with tempfile.TemporaryDirectory(prefix="atalaya-registry-") as folder:
        registry = make_registry(Path(folder))
        patience = {"MODEL__QUEUE_SECONDS": "60", "MODEL__QUEUE_LIMIT": "1000", "MODEL__DEADLINE_SECONDS": "300"}
        threads = str(max(1, INFERENCE_THREADS // workers))
        changes = {"WEB_CONCURRENCY": str(workers), "MODEL__WORKERS": threads, "LOG_LEVEL": "warning", **patience}
        changes["MODEL__PREPARE"] = str(prepared).lower()
        with running_gateway(None, **changes, **registry.settings) as gateway:
            asyncio.run(load(gateway, registry, results, 0, connections))
            results.before = measure_memory(gateway)
            asyncio.run(load(gateway, registry, results, moves, connections))
            results.after = measure_memory(gateway)
            entries = read_entries(gateway.database_path)
    problems = (find_mixture(body, entries[prediction_id]) for prediction_id, body in results.bodies.items())
    results.mixtures.extend(filter(None, problems))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes of the gateway")
    parser.add_argument("--unprepared", action="store_true")
    options = parser.parse_args()
    results = run(options.moves, options.connections, options.workers, prepared=not options.unprepared)
    results.show()
    failures = results.describe_failures()
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""A simulated deployment: gateways in front of engines, which share Redis and PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.scale.costs import Costs
from bench.scale.events import Act, Clock, Lock, Station

MAX_BATCH = 500  # entries of one transaction, as in monitoring/ledger/ledger.py


@dataclass(frozen=True, slots=True)
class Deployment:
    """`engine_slots` is how many images an engine computes at once. Each caller has one row of usage."""

    gateways: int = 200
    engines: int = 50
    engine_slots: int = 8
    database_cores: int = 8
    callers: int = 1000
    databases: int = 1


class Cluster:
    """A running simulation. `latencies` are those of all completed requests, in seconds."""

    def __init__(self, deployment: Deployment, costs: Costs, seed: int = 1) -> None:
        self.clock = Clock()
        self.latencies: list[float] = []
        self._deployment = deployment
        self._costs = costs
        self._random = random.Random(seed)  # noqa: S311  (not for secrets)
        self.gateways = [Station(self.clock, 1) for _ in range(deployment.gateways)]
        self.engines = [Station(self.clock, deployment.engine_slots) for _ in range(deployment.engines)]
        self.redis = Station(self.clock, 1)
        self.databases = [Station(self.clock, deployment.database_cores) for _ in range(deployment.databases)]
        rows = [Lock() for _ in range(deployment.callers)]
        self._writers = [
            _Writer(self.clock, gateway, self.databases[index % deployment.databases], rows, costs)
            for index, gateway in enumerate(self.gateways)
        ]
        self._in_flight = [[0] * deployment.engines for _ in self.gateways]

    def offer(self, rate: float, seconds: float) -> None:
        """Simulate `seconds` in which requests arrive at random times, `rate` per second."""

        def arrive() -> None:
            self.send(lambda: None)
            self.clock.after(self._random.expovariate(rate), arrive)

        arrive()
        self.clock.run(seconds)

    def send_repeatedly(self, connections: int, seconds: float, caller_s: float = 0.0) -> None:
        """Simulate connections that each send a request after the response to the last one, for `seconds`.

        They share one processor of the client, which is busy for `caller_s` before each request.
        """
        caller = Station(self.clock, 1)

        def prepare() -> None:
            caller.serve(caller_s, lambda: self.send(prepare))

        for _ in range(connections):
            prepare()
        self.clock.run(seconds)

    def send(self, then: Act) -> None:
        """Simulate a request from a random caller to a random gateway, which does half of its work at the end."""
        started, index = self.clock.now, self._random.randrange(len(self.gateways))
        gateway, half = self.gateways[index], self._costs.request_s / 2
        caller = self._random.randrange(self._deployment.callers)

        def finish() -> None:
            self.latencies.append(self.clock.now - started)
            then()

        def respond() -> None:
            gateway.serve(half, finish)

        def record() -> None:
            self._writers[index].add(caller, respond)

        def infer() -> None:
            self._infer(index, record)

        gateway.serve(half, lambda: self.redis.serve(self._costs.redis_s, infer))

    def _infer(self, gateway: int, then: Act) -> None:
        """Use the engine with the fewest requests from this gateway, which does not see those of other gateways."""
        own = self._in_flight[gateway]
        fewest = min(own)
        engine = self._random.choice([index for index, count in enumerate(own) if count == fewest])
        own[engine] += 1

        def finish() -> None:
            own[engine] -= 1
            then()

        self.engines[engine].serve(self._random.choice(self._costs.inference_s), finish)


class _Writer:
    """The ledger of one gateway: entries that arrive during a transaction share the next one."""

    def __init__(self, clock: Clock, gateway: Station, database: Station, rows: Sequence[Lock], costs: Costs) -> None:
        self._clock = clock
        self._gateway = gateway
        self._database = database
        self._rows = rows
        self._costs = costs
        self._waiting: list[tuple[int, Act]] = []
        self._writing = False

    def add(self, caller: int, then: Act) -> None:
        self._waiting.append((caller, then))
        if not self._writing:
            self._writing = True
            self._write()

    def _write(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        locks = [self._rows[caller] for caller in sorted({caller for caller, _ in batch})]

        def commit() -> None:
            seconds = self._costs.transaction_s + self._costs.entry_s * len(batch)
            self._database.serve(seconds, lambda: self._clock.after(self._costs.commit_wait_s, finish))

        def finish() -> None:
            for lock in locks:
                lock.release()
            for _, then in batch:
                then()
            if self._waiting:
                self._write()
            else:
                self._writing = False

        seconds = self._costs.writer_transaction_s + self._costs.writer_entry_s * len(batch)
        self._gateway.serve(seconds, lambda: _acquire_all(locks, commit))


def _acquire_all(locks: Sequence[Lock], then: Act) -> None:
    """Acquire the locks one after another: always in the same order, so that transactions cannot deadlock."""

    def acquire(index: int) -> None:
        if index == len(locks):
            then()
        else:
            locks[index].acquire(lambda: acquire(index + 1))

    acquire(0)

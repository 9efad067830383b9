"""Kill gateways and make their storage fail under load, and check that the ledger loses nothing.

    python -m tests.experiments.ledger [--rounds 20] [--seconds 10]

Prints one line for each experiment. Exit status 0 if every prediction that was returned is recorded exactly once and
every chain is valid; 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
from sqlalchemy import create_engine, text

from bench.load import LoadResults, build_request, drive
from tests.support import postgres
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until, wait_until_async

CONNECTIONS = 16


@dataclass
class Outcome:
    """The result of one experiment."""

    name: str
    returned: int = 0
    missing: int = 0
    doubled: int = 0
    charged: int | None = None
    problem: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        is_charged = self.charged is None or self.charged >= self.returned
        return not (self.missing or self.doubled or self.problem) and self.returned > 0 and is_charged

    def __str__(self) -> str:
        verdict = "ok" if self.is_good else f"FAILED {self.problem}"
        counts = f"{self.returned:>7} returned {self.missing:>3} missing {self.doubled:>3} twice"
        return f"{self.name:<52}{counts}   {', '.join([verdict, *self.notes])}"


class TrackedGateway:
    """A gateway on the stub back end, and the ids of all predictions that it has returned."""

    def __init__(self, folder: Path, database: str = "", **changes: str) -> None:
        settings = {"MODEL__URL": "stub://", "LIMITS__PREDICT": "10000000/minute", "LOG_LEVEL": "warning"}
        settings |= {"DATABASE_URL": database} if database else {}
        self.gateway: Gateway = make_gateway(folder, **settings, **changes)
        self.ids: list[str] = []
        self.gateway.start()
        self.renew_token()

    def renew_token(self) -> None:
        """Fetch a token for the next experiment, before the database fails."""
        self.request = build_request(self.gateway.token(), FOREST)

    def load(self, seconds: float) -> LoadResults:
        load = asyncio.run(drive(self.gateway.port, self.request, CONNECTIONS, seconds))
        self.ids += load.ids
        return load

    def kill_under_load(self, seconds: float) -> None:
        """Start the load, and send SIGKILL after `seconds`."""

        async def run() -> LoadResults:
            loading = asyncio.create_task(drive(self.gateway.port, self.request, CONNECTIONS, seconds + 1))
            await asyncio.sleep(seconds)
            self.gateway.kill()
            return await loading

        self.ids += asyncio.run(run()).ids

    def load_during(self, seconds: float, fault: Callable[[], object], heal: Callable[[], object]) -> Counter[int]:
        """Send load before `fault`, until after `heal`, and return the statuses; the fault lasts at least `seconds`."""

        async def run() -> list[LoadResults]:
            loads, ended = list[LoadResults](), asyncio.Event()

            async def load_repeatedly() -> None:
                while not ended.is_set():
                    loads.append(await drive(self.gateway.port, self.request, CONNECTIONS, 0.5, reconnect=True))

            async def wait_for_whole_load() -> None:
                later = len(loads) + 2
                await wait_until_async(lambda: len(loads) >= later or loading.done())

            loading = asyncio.create_task(load_repeatedly())
            await wait_for_whole_load()
            await asyncio.to_thread(fault)
            await asyncio.gather(asyncio.sleep(seconds), wait_for_whole_load())
            await asyncio.to_thread(heal)
            await wait_for_whole_load()
            ended.set()
            await loading
            return loads

        loads = asyncio.run(run())
        self.ids += [prediction for load in loads for prediction in load.ids]
        self.wait_until_delivered()
        return sum((load.statuses for load in loads), Counter[int]())

    def wait_until_delivered(self) -> None:
        """Wait until the database has every entry of the spools."""
        metric, writing = self.gateway.metric, 'atalaya_ledger_state{state="writing"}'
        wait_until(
            lambda: metric("atalaya_ledger_spooled_entries") == 0 and metric(writing) == 1, message="still spooled"
        )

    def check(self, name: str, *notes: str) -> Outcome:
        """Compare the predictions that were returned with those that are recorded, and verify the chains."""
        engine = create_engine(self.gateway.environment["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            recorded = [row[0] for row in connection.execute(text("SELECT id FROM ledger_payloads WHERE status = 200"))]
            charged = connection.execute(text("SELECT sum(requests) FROM usage")).scalar_one()
        engine.dispose()
        distinct = set(recorded)
        verified = self.gateway.run("ledger", "verify")
        return Outcome(
            name,
            returned=len(self.ids),
            missing=len(set(self.ids) - distinct),
            doubled=len(recorded) - len(distinct) + len(self.ids) - len(set(self.ids)),
            charged=charged,
            problem=verified.stderr.strip() or ("" if charged == len(recorded) else f"{charged} charged"),
            notes=[f"{len(recorded)} recorded", *notes],
        )


def kill_repeatedly(tracked: TrackedGateway, rounds: int, name: str) -> Outcome:
    """In each round, send SIGKILL at a random moment under load, restart and check."""
    tracked.load(0.2)  # the first SIGKILL may come before any response
    for done in range(rounds):
        tracked.renew_token()
        tracked.kill_under_load(random.uniform(0.3, 1.2))  # noqa: S311  (not a secret)
        tracked.gateway.start()
        tracked.wait_until_delivered()
        outcome = tracked.check(f"{name}, round {done + 1}")
        if not outcome.is_good:
            return outcome
    return tracked.check(f"{name}: {rounds} x SIGKILL under {CONNECTIONS} connections")


def describe_failures(statuses: Counter[int]) -> str:
    failures = {status: count for status, count in statuses.items() if status != 200}
    return f"others {failures}" if failures else "all 200"


def lock_sqlite(tracked: TrackedGateway, seconds: float) -> Outcome:
    tracked.renew_token()
    lock = open_lock(tracked)
    statuses = tracked.load_during(seconds, lambda: lock.execute("BEGIN IMMEDIATE"), lock.close)
    return tracked.check(f"SQLite: locked for {seconds:.0f} s", describe_failures(statuses))


def open_lock(tracked: TrackedGateway) -> sqlite3.Connection:
    """Open a connection to the gateway's database, which it can lock with BEGIN IMMEDIATE."""
    return sqlite3.connect(tracked.gateway.database_path, isolation_level=None, check_same_thread=False)


def stop_postgres(tracked: TrackedGateway, server: postgres.Postgres, seconds: float) -> Outcome:
    tracked.renew_token()
    statuses = tracked.load_during(seconds, server.stop, server.start)
    return tracked.check(f"PostgreSQL: stopped for {seconds:.0f} s", describe_failures(statuses))


def suspend_postgres(tracked: TrackedGateway, server: postgres.Postgres, seconds: float) -> Outcome:
    tracked.renew_token()
    suspension = ExitStack()
    statuses = tracked.load_during(seconds, lambda: suspension.enter_context(server.hung()), suspension.close)
    return tracked.check(f"PostgreSQL: hung for {seconds:.0f} s", describe_failures(statuses))


def kill_while_spooling(
    tracked: TrackedGateway, name: str, fault: Callable[[], object], heal: Callable[[], object]
) -> Outcome:
    """Kill the gateway under load while only the spool has the entries, and again while it delivers them."""
    tracked.renew_token()
    fault()
    tracked.kill_under_load(2.0)
    heal()
    for _ in range(3):
        tracked.gateway.start()
        tracked.gateway.kill()
    tracked.gateway.start()
    tracked.wait_until_delivered()
    return tracked.check(f"{name}, SIGKILL spooling, 3 x delivering")


def fill_disk(seconds: float) -> Outcome:
    """Keep database and spool on a disk of 24 MB, fill it with another file, and remove that file again."""
    changes = {"LEDGER__SPOOL_MEGABYTES": "1000"}
    with small_disk() as disk, fresh(folder=disk, LEDGER__SPOOL_FOLDER=str(disk / "spool"), **changes) as tracked:
        filler, states = disk / "filler", []

        def fill() -> None:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

        def heal() -> None:
            wait_until(lambda: tracked.gateway.metric('atalaya_ledger_state{state="full"}') == 1)
            states.append(tracked.gateway.get("/readyz").json()["checks"]["ledger"])
            filler.unlink()

        statuses = tracked.load_during(seconds, fill, heal)
        after = tracked.load(1.0).statuses
        name = f"SQLite: disk full for {seconds:.0f} s"
        outcome = tracked.check(name, describe_failures(statuses), f"meanwhile {states[0]}")
        if not statuses[503] or set(after) != {200}:
            outcome.problem = outcome.problem or f"statuses {dict(statuses)}, afterwards {dict(after)}"
        return outcome


@contextmanager
def small_disk() -> Iterator[Path]:
    """Mount a file system of 24 MB. Raises PermissionError if that is not possible."""
    folder = Path(tempfile.mkdtemp(prefix="atalaya-disk-"))
    options = ["-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        folder.rmdir()
        raise PermissionError("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def fresh(database: str = "", folder: Path | None = None, **changes: str) -> Iterator[TrackedGateway]:
    """Run a gateway, in a temporary folder by default; stop it at the end, or kill it after an error."""
    own = Path(tempfile.mkdtemp(prefix="atalaya-faults-"))
    tracked = TrackedGateway(folder or own, database, **changes)
    try:
        yield tracked
        tracked.gateway.stop()
    finally:
        if tracked.gateway.is_running:
            tracked.gateway.kill()
        shutil.rmtree(own)


def create_database(server: postgres.Postgres) -> str:
    name = f"faults_{uuid4().hex}"
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.url}/{name}"


def experiments(rounds: int, seconds: float) -> Iterator[Outcome]:
    with fresh() as tracked:
        yield kill_repeatedly(tracked, rounds, "SQLite")
        yield lock_sqlite(tracked, seconds)
        lock = open_lock(tracked)
        yield kill_while_spooling(tracked, "SQLite: locked", lambda: lock.execute("BEGIN IMMEDIATE"), lock.close)
    try:
        yield fill_disk(seconds)
    except PermissionError as error:
        print(f"skipped: {error}", file=sys.stderr)
    with postgres.running() as server, fresh(create_database(server)) as tracked:
        yield kill_repeatedly(tracked, rounds, "PostgreSQL")
        yield stop_postgres(tracked, server, seconds)
        yield suspend_postgres(tracked, server, seconds)
        yield kill_while_spooling(tracked, "PostgreSQL: stopped", server.stop, server.start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    success = True
    for outcome in experiments(options.rounds, options.seconds):
        print(outcome, flush=True)
        success &= outcome.is_good
    return 0 if success else 1


if __name__ == "__main__":
    sys.exit(main())

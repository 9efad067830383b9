"""What becomes of the ledger when processes are killed and storage fails, under load.

    python -m tests.experiments.ledger [--rounds 20] [--seconds 10]

Prints a line an experiment. Exit status 0 when nothing that was answered is missing or there twice, and every chain
is valid; 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
from sqlalchemy import create_engine, text

from bench.load import Load, drive, request_of
from tests.conftest import ROOT, Gateway, make_gateway
from tests.support import postgres

SAMPLE = ROOT / "samples" / "yellowstone_forest.jpg"
CONNECTIONS = 16


@dataclass
class Outcome:
    """What an experiment has shown."""

    name: str
    answered: int = 0
    missing: int = 0
    doubled: int = 0
    charged: int | None = None
    problem: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        paid = self.charged is None or self.charged >= self.answered
        return not (self.missing or self.doubled or self.problem) and self.answered > 0 and paid

    def __str__(self) -> str:
        verdict = "ok" if self.good else f"FAILED {self.problem}"
        told = f"{self.answered:>7} answered {self.missing:>3} missing {self.doubled:>3} twice"
        return f"{self.name:<52}{told}   {', '.join([verdict, *self.notes])}"


class Bench:
    """A gateway on the stub back end, and everything that it has answered."""

    def __init__(self, folder: Path, database: str = "", **changes: str) -> None:
        settings = {"MODEL__URL": "stub://", "LIMITS__PREDICT": "10000000/minute", "LOG_LEVEL": "warning"}
        settings |= {"DATABASE_URL": database} if database else {}
        self.gateway: Gateway = make_gateway(folder, **settings, **changes)
        self.ids: list[str] = []
        self.gateway.start()
        self.request = request_of(self.gateway.token(), SAMPLE)

    def load(self, seconds: float, again: bool = False) -> Load:
        port = int(self.gateway.environment["PORT"])
        load = asyncio.run(drive(port, self.request, CONNECTIONS, seconds, again))
        self.ids += load.ids
        return load

    def kill(self) -> None:
        """No time to say good-bye."""
        assert self.gateway.process
        self.gateway.process.send_signal(signal.SIGKILL)
        self.gateway.process.wait()

    def kill_under_load(self, seconds: float) -> None:
        """Kill it so long after the load has begun."""

        async def strike() -> Load:
            port = int(self.gateway.environment["PORT"])
            loading = asyncio.create_task(drive(port, self.request, CONNECTIONS, seconds + 1))
            await asyncio.sleep(seconds)
            self.kill()
            return await loading

        self.ids += asyncio.run(strike()).ids

    def until_delivered(self) -> None:
        """Wait until no entry is in a spool."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = httpx.get(self.gateway.metrics_url).text.splitlines()
            if "atalaya_ledger_spooled_entries 0.0" in lines and 'atalaya_ledger_state{state="writing"} 1.0' in lines:
                return
            time.sleep(0.1)

    def outcome(self, name: str, *notes: str) -> Outcome:
        """Compare what was answered with what is on record, and verify the chains."""
        engine = create_engine(self.gateway.environment["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            recorded = [row[0] for row in connection.execute(text("SELECT id FROM ledger_payloads WHERE status = 200"))]
            charged = connection.execute(text("SELECT sum(requests) FROM usage")).scalar_one()
        engine.dispose()
        known = set(recorded)
        verified = self.gateway.run("ledger", "verify")
        return Outcome(
            name,
            answered=len(self.ids),
            missing=len(set(self.ids) - known),
            doubled=len(recorded) - len(known) + len(self.ids) - len(set(self.ids)),
            charged=charged,
            problem=verified.stderr.strip() or ("" if charged == len(recorded) else f"{charged} charged"),
            notes=[f"{len(recorded)} on record", *notes],
        )


def killed(bench: Bench, rounds: int, name: str) -> Outcome:
    """SIGKILL at a random moment under load, start again, check: so many times."""
    for done in range(rounds):
        bench.kill_under_load(random.uniform(0.3, 1.2))  # noqa: S311  (no secret)
        bench.gateway.start()
        bench.until_delivered()
        outcome = bench.outcome(f"{name}, round {done + 1}")
        if not outcome.good:
            return outcome
    return bench.outcome(f"{name}: {rounds} x SIGKILL under {CONNECTIONS} connections")


def during(bench: Bench, seconds: float, fault: Callable[[], object], heal: Callable[[], object]) -> Load:
    """Load for so long and a bit more; the fault comes after a second, and heals a second before the end."""

    async def run() -> Load:
        port = int(bench.gateway.environment["PORT"])
        loading = asyncio.create_task(drive(port, bench.request, CONNECTIONS, seconds + 2, again=True))
        await asyncio.sleep(1)
        await asyncio.to_thread(fault)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(heal)
        return await loading

    load = asyncio.run(run())
    bench.ids += load.ids
    bench.until_delivered()
    return load


def notes_of(load: Load) -> list[str]:
    others = {status: count for status, count in load.statuses.items() if status != 200}
    return [f"others {others}"] if others else ["all 200"]


def sqlite_locked(bench: Bench, seconds: float) -> Outcome:
    lock = lock_of(bench)
    load = during(bench, seconds, lambda: lock.execute("BEGIN IMMEDIATE"), lock.close)
    return bench.outcome(f"SQLite: locked for {seconds:.0f} s", *notes_of(load))


def lock_of(bench: Bench) -> sqlite3.Connection:
    return sqlite3.connect(bench.gateway.folder / "gateway.db", isolation_level=None, check_same_thread=False)


def postgres_stopped(bench: Bench, server: postgres.Postgres, seconds: float) -> Outcome:
    load = during(bench, seconds, server.stop, server.start)
    return bench.outcome(f"PostgreSQL: stopped for {seconds:.0f} s", *notes_of(load))


def postgres_hung(bench: Bench, server: postgres.Postgres, seconds: float) -> Outcome:
    hang = server.hung()
    load = during(bench, seconds, hang.__enter__, lambda: hang.__exit__(None, None, None))
    return bench.outcome(f"PostgreSQL: hung for {seconds:.0f} s", *notes_of(load))


def killed_while_spooling(bench: Bench, name: str, fault: Callable[[], object], heal: Callable[[], object]) -> Outcome:
    """Killed under load while entries are in the spool alone, and again while they are delivered."""
    fault()
    bench.kill_under_load(2.0)
    heal()
    for _ in range(3):
        bench.gateway.start()
        bench.kill()
    bench.gateway.start()
    bench.until_delivered()
    return bench.outcome(f"{name}, SIGKILL spooling, 3 x delivering")


def disk_full(seconds: float) -> Outcome:
    """Database and spool on a disk of a few megabytes, which another file fills; then it is removed."""
    changes = {"LEDGER__SPOOL_MEGABYTES": "1000"}
    with small_disk() as disk, fresh(folder=disk, LEDGER__SPOOL_FOLDER=str(disk / "spool"), **changes) as bench:
        filler, ready = disk / "filler", []

        def fill() -> None:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

        def heal() -> None:
            ready.append(httpx.get(f"{bench.gateway.base_url}/readyz").json()["checks"]["ledger"])
            filler.unlink()

        load = during(bench, seconds, fill, heal)
        after = bench.load(1.0)
        outcome = bench.outcome(f"SQLite: disk full for {seconds:.0f} s", *notes_of(load), f"meanwhile {ready[0]}")
        if not load.statuses[503] or set(after.statuses) != {200}:
            outcome.problem = outcome.problem or f"statuses {dict(load.statuses)}, afterwards {dict(after.statuses)}"
        return outcome


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of 24 MB. Raises PermissionError where none may be mounted."""
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
def fresh(database: str = "", folder: Path | None = None, **changes: str) -> Iterator[Bench]:
    own = Path(tempfile.mkdtemp(prefix="atalaya-faults-"))
    bench = Bench(folder or own, database, **changes)
    try:
        yield bench
        bench.gateway.stop()
    finally:
        if bench.gateway.process and bench.gateway.process.poll() is None:
            bench.kill()
        shutil.rmtree(own)


def database_of(server: postgres.Postgres) -> str:
    name = f"faults_{uuid4().hex}"
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.url}/{name}"


def experiments(rounds: int, seconds: float) -> Iterator[Outcome]:
    with fresh() as bench:
        yield killed(bench, rounds, "SQLite")
        yield sqlite_locked(bench, seconds)
        lock = lock_of(bench)
        yield killed_while_spooling(bench, "SQLite: locked", lambda: lock.execute("BEGIN IMMEDIATE"), lock.close)
    try:
        yield disk_full(seconds)
    except PermissionError as error:
        print(f"skipped: {error}", file=sys.stderr)
    with postgres.running() as server, fresh(database_of(server)) as bench:
        yield killed(bench, rounds, "PostgreSQL")
        yield postgres_stopped(bench, server, seconds)
        yield postgres_hung(bench, server, seconds)
        yield killed_while_spooling(bench, "PostgreSQL: stopped", server.stop, server.start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    good = True
    for outcome in experiments(options.rounds, options.seconds):
        print(outcome, flush=True)
        good &= outcome.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

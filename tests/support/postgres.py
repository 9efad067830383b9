"""A temporary PostgreSQL server on a free port, which a test can stop and suspend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from tests.support.linux.processes import children, is_stopped
from tests.support.polling import wait_until
from tests.support.ports import free_port

_OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c port={port}"
_NOT_DURABLE = " -c fsync=off -c max_wal_size=100MB"  # the log, too, may be in memory
_MEMORY = Path("/dev/shm")  # noqa: S108  (mkdtemp makes a private folder in it)
_NEEDED_BYTES = 2 * 1024**3


class Postgres:
    """A server in a temporary folder; not started. Raises LookupError if PostgreSQL is not installed.

    It waits for the disk only if it is `durable`. Otherwise its folder is in memory if there is enough: a database
    consists of hundreds of files, and on a disk it takes ten times as long to create and remove them.
    """

    def __init__(self, *, durable: bool = False) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        if not found:
            raise LookupError("PostgreSQL is not installed: apt-get install postgresql")
        self._programs = found[-1].parent
        # Not the test's tmp_path: the account `postgres` could not enter it.
        self._folder = Path(tempfile.mkdtemp(prefix="atalaya-postgres-", dir=None if durable else _find_memory()))
        self._account = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._account:
            shutil.chown(self._folder, "postgres")
        self._port = free_port()
        self._options = _OPTIONS.format(port=self._port) + ("" if durable else _NOT_DURABLE)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")

    @property
    def url(self) -> str:
        """The URL without a database name."""
        return f"postgresql://postgres@127.0.0.1:{self._port}"

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", self._options)

    def require_passwords(self) -> None:
        """Require a password from every user except `postgres`."""
        rules = ["host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256", ""]
        (self._folder / "data" / "pg_hba.conf").write_text("\n".join(rules))
        self._run("pg_ctl", "reload")

    def stop(self) -> None:
        """Stop at once and without a checkpoint, as if the machine had failed."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Suspend all processes of the server for the duration of the block; connections stay open."""
        leader = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(leader, signal.SIGSTOP)  # first, so that it starts no more processes
        wait_until(lambda: is_stopped(leader))
        server = [leader, *children(leader)]
        try:
            _send_signal(signal.SIGSTOP, server)
            yield
        finally:
            _send_signal(signal.SIGCONT, server)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _run(self, program: str, *options: str) -> None:
        command = [*self._account, str(self._programs / program), "-D", str(self._folder / "data"), *options]
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL)


def _find_memory() -> Path | None:
    """Return the file system in memory; None if there is none or it has too little space, as in many containers."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES else None


def execute_when_unused(connection: psycopg.Connection[Any], statement: LiteralString) -> None:
    """Copy or drop a database. PostgreSQL itself waits only five seconds for other connections to it to end."""

    def succeeds() -> bool:
        with suppress(psycopg.errors.ObjectInUse):
            connection.execute(statement)
            return True
        return False

    wait_until(succeeds)


def _send_signal(number: signal.Signals, processes: Iterable[int]) -> None:
    """Send a signal to the processes that have not ended."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


@contextmanager
def running(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a server, which is stopped and removed at the end. Raises LookupError."""
    server = Postgres(durable=durable)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()

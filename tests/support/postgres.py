"""A real PostgreSQL server of one's own: on a free port, in a folder that goes away, to be stopped and hung at will."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c port={port}"


class Postgres:
    """A server's folder; nothing runs yet. Raises LookupError where PostgreSQL is not installed."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        if not found:
            raise LookupError("PostgreSQL is not installed: apt-get install postgresql")
        self._programs = found[-1].parent
        # Not a test's folder: the server's own account could not enter it.
        self._folder = Path(tempfile.mkdtemp(prefix="atalaya-postgres-"))
        self._account = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._account:
            shutil.chown(self._folder, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")

    @property
    def url(self) -> str:
        """Without a database's name."""
        return f"postgresql://postgres@127.0.0.1:{self._port}"

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", _OPTIONS.format(port=self._port))

    def stop(self) -> None:
        """At once, as if the machine had failed."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Meanwhile no process of the server does anything; connections stay open."""
        leader = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        everyone = [leader, *_children(leader)]
        for process in everyone:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in everyone:
                os.kill(process, signal.SIGCONT)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _run(self, program: str, *options: str) -> None:
        command = [*self._account, str(self._programs / program), "-D", str(self._folder / "data"), *options]
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL)


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@contextmanager
def running() -> Iterator[Postgres]:
    """A server that is stopped and removed in the end. Raises LookupError."""
    server = Postgres()
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()

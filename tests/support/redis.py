"""A temporary Redis server on a free port, which a test can suspend, kill and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port


class Redis:
    """A server on a port of its own; not started. Raises LookupError if Redis is not installed."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            raise LookupError("Redis is not installed: apt-get install redis-server")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start with an empty database and return once the server responds."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        wait_until(lambda: self.ask(b"PING") == b"+PONG\r\n", message="Redis does not respond")

    def ask(self, command: bytes) -> bytes:
        """Return the reply to an inline command; empty if the server does not respond."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(65536)
        return b""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process; after SIGKILL, wait until it has ended."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.send(signal.SIGKILL)


@contextmanager
def running(folder: Path) -> Iterator[Redis]:
    """Run a server, which is killed at the end. Raises LookupError."""
    server = Redis(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()

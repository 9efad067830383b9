"""A real Redis server of one's own: on a free port, to be frozen, killed and started anew."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Redis:
    """A server's port; nothing runs yet. Raises LookupError where Redis is not installed."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            raise LookupError("Redis is not installed: apt-get install redis-server")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Empty, once it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while self.ask(b"PING") != b"+PONG\r\n":
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.01)

    def ask(self, command: bytes) -> bytes:
        """The answer to an inline command; nothing while the server is away."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(65536)
        return b""

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.send(signal.SIGKILL)


@contextmanager
def running(folder: Path) -> Iterator[Redis]:
    """A server that is killed in the end. Raises LookupError."""
    server = Redis(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()

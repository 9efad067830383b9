from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

MAX_GROWTH_KB = 80_000


@dataclass(frozen=True)
class Wire:
    """A caller that writes its requests by hand."""

    port: int
    token: str

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """The head of a request with a token."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.token}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    def upload(self, content_type: str, *headers: str) -> bytes:
        """The head of a prediction whose body has no announced length."""
        more = headers or ("Transfer-Encoding: chunked",)
        return self.head("POST", "/v1/predictions", f"Content-Type: {content_type}", *more)

    def ask(self, *sent: bytes) -> tuple[int, dict[str, Any]]:
        """The status and the document of the answer, however much of `sent` the gateway took."""
        with closing(self.connect()) as connection:
            return self.ask_on(connection, sent)

    @staticmethod
    def ask_on(connection: socket.socket, sent: Iterable[bytes]) -> tuple[int, dict[str, Any]]:
        with suppress(OSError):
            for data in sent:
                connection.sendall(data)
        received = b""
        with suppress(ConnectionResetError):
            while not _is_whole(received) and (chunk := connection.recv(65536)):
                received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"\r\nx-request-id: " in head.lower(), received[:500]
        return int(head.split()[1]), json.loads(body)


def _is_whole(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(separator and length and len(body) >= int(length[1]))


@pytest.fixture(scope="session")
def wire(gateway: Any) -> Wire:
    return Wire(int(gateway.environment["PORT"]), gateway.token())


@pytest.fixture
def bounded(gateway: Any) -> Iterator[None]:
    """Fails the test when the gateway needs much more memory after it, or is slow to say that it lives."""
    before = _resident_kb(gateway)
    yield
    started = time.monotonic()
    assert httpx.get(f"{gateway.base_url}/livez").is_success
    assert time.monotonic() - started < 1
    assert _resident_kb(gateway) - before < MAX_GROWTH_KB


def _resident_kb(gateway: Any) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

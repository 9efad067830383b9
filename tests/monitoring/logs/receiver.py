"""An HTTP server on loopback that receives log lines, and that a test can make fail."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.servers.running import running


@dataclass
class LogReceiver:
    """Responds with `status`; `accepted` contains the lines of the requests that it has accepted.

    While `released` is not set, it receives requests but does not respond.
    """

    port: int = 0
    status: int = 202
    released: threading.Event = field(default_factory=threading.Event)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/input?source=atalaya"

    def handle(self, headers: dict[str, str], body: bytes) -> int:
        """Record a request, and return the status of the response: the one that was set when the request arrived."""
        status = self.status  # before the request is visible: a test that waits for it may then change the status
        self.requests.append(headers)
        text = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        self.bodies.append(text)
        self.released.wait()
        if status < 300:
            lines = json.loads(text)
            self.batches.append(len(lines))
            self.accepted.extend(lines)
        return status

    def events(self) -> list[str]:
        return [line.get("event.name", "") for line in self.accepted]


def _make_handler(receiver: LogReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            receiver.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.handle({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler


@contextmanager
def running_receiver(receiver: LogReceiver) -> Iterator[LogReceiver]:
    """Serve on the receiver's port, or on a free one if it has none yet."""
    server = ThreadingHTTPServer(("127.0.0.1", receiver.port), _make_handler(receiver))
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    receiver.released.set()
    with running(server):
        try:
            yield receiver
        finally:
            receiver.released.set()

"""A Sentry server for tests, on loopback."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import brotli

from tests.support.servers.running import running


class Sink(ThreadingHTTPServer):
    """A local Sentry server that stores the body of every envelope."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.envelopes: list[bytes] = []

    @property
    def dsn(self) -> str:
        return f"http://publickey@127.0.0.1:{self.server_port}/7"

    def events(self) -> list[dict[str, Any]]:
        """Parse the envelopes: a header line, then a header line and a payload line for each item."""
        lines = (body.decode().strip().split("\n") for body in self.envelopes)
        return [
            json.loads(payload)
            for _, *items in lines
            for header, payload in zip(items[::2], items[1::2], strict=True)
            if json.loads(header)["type"] == "event"
        ]


# The SDK uses Brotli if a library for it is installed.
_DECOMPRESS: dict[str | None, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "br": brotli.decompress}


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        decompress = _DECOMPRESS.get(self.headers["Content-Encoding"], bytes)
        self.server.envelopes.append(decompress(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        pass


def running_sink() -> AbstractContextManager[Sink]:
    return running(Sink())


class KeepingReporter:
    """A reporter that stores errors with their tags and principals instead of sending them."""

    def __init__(self) -> None:
        self.captured: list[tuple[BaseException, Mapping[str, str], str | None]] = []

    def capture(self, error: BaseException, tags: Mapping[str, str], principal: str | None = None) -> None:
        self.captured.append((error, tags, principal))

    def flush(self) -> None:
        pass

    def close(self, limit_s: float = 0) -> None:
        pass

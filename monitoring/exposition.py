"""The private port of the metrics: plain HTTP, in threads of its own, without a login."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, registry: CollectorRegistry) -> None:
        address = listener.getsockname()
        super().__init__(address, _Quiet, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address[:2]
        self.setup_environ()
        self.set_app(make_wsgi_app(registry))


class _Quiet(WSGIRequestHandler):
    timeout = 5.0  # seconds for each reading and writing: an idle connection must not keep a thread

    def handle(self) -> None:
        with suppress(TimeoutError):  # else it would be told at length on standard error
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Scrapes are no news."""


@contextmanager
def metrics_port(listener: socket.socket, registry: CollectorRegistry) -> Iterator[None]:
    """Serve what `registry` holds to whoever connects, until the context ends; `listener` is closed then.

    Other processes may accept from the same listener.
    """
    listener.listen()
    # Who comes too late for a connection must not wait for the next one: the end would wait with it.
    listener.setblocking(False)
    server = _Server(listener, registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""The private port of the metrics: plain HTTP without authentication, served by threads of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def _serve_head_as_get(app: WSGIApplication) -> WSGIApplication:
    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return app(environ, start_response)
        app({**environ, "REQUEST_METHOD": "GET"}, start_response)
        return []

    return serve


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, registry: CollectorRegistry, idle_timeout_s: float) -> None:
        address = listener.getsockname()
        super().__init__(address, _Handler, bind_and_activate=False)
        self.idle_timeout_s = idle_timeout_s
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address[:2]
        self.setup_environ()
        self.set_app(_serve_head_as_get(make_wsgi_app(registry)))


class _Handler(WSGIRequestHandler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.idle_timeout_s)

    def handle(self) -> None:
        with suppress(TimeoutError):  # the base class would print a traceback
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Do not log scrapes."""


@contextmanager
def serve_metrics(listener: socket.socket, registry: CollectorRegistry, idle_timeout_s: float = 5.0) -> Iterator[None]:
    """Serve the registry's metrics until the context ends, then close `listener`.

    Other processes may accept from the same listener. A connection is closed when a read or a write takes longer than
    `idle_timeout_s` seconds, so that idle connections occupy no threads.
    """
    listener.listen()
    # Another process may accept the connection first. A blocking accept would then block the shutdown as well.
    listener.setblocking(False)
    server = _Server(listener, registry, idle_timeout_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

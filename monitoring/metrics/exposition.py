"""The private port of the metrics: plain HTTP without authentication, served by threads of its own."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client.exposition import gzip_accepted

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_TEXT = "text/plain; charset=utf-8"

# Returns the metrics and their media type, for an Accept header.
Encode = Callable[[str], tuple[bytes, str]]


def _make_application(encode: Encode) -> WSGIApplication:
    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, status, headers = environ["REQUEST_METHOD"], HTTPStatus.OK, []
        if environ["PATH_INFO"] != "/metrics":
            status, content, media_type = HTTPStatus.NOT_FOUND, b"This port serves only /metrics.\n", _TEXT
        elif method not in ("GET", "HEAD"):
            status, content, media_type = HTTPStatus.METHOD_NOT_ALLOWED, b"Use GET or HEAD.\n", _TEXT
            headers.append(("Allow", "GET, HEAD"))
        else:
            content, media_type = encode(environ.get("HTTP_ACCEPT", ""))
            headers.append(("Vary", "Accept, Accept-Encoding"))
            if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
                content = gzip.compress(content)
                headers.append(("Content-Encoding", "gzip"))
        headers += [("Content-Type", media_type), ("Content-Length", str(len(content)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if method == "HEAD" else [content]

    return serve


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, encode: Encode, idle_timeout_s: float) -> None:
        address = listener.getsockname()
        super().__init__(address, _Handler, bind_and_activate=False)
        self.idle_timeout_s = idle_timeout_s
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address[:2]
        self.setup_environ()
        self.set_app(_make_application(encode))


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
def serve_metrics(listener: socket.socket, encode: Encode, idle_timeout_s: float = 5.0) -> Iterator[None]:
    """Serve what `encode` returns at /metrics until the context ends, then close `listener`.

    Other processes may accept from the same listener. A connection is closed when a read or a write takes longer than
    `idle_timeout_s` seconds, so that idle connections occupy no threads.
    """
    listener.listen()
    # Another process may accept the connection first. A blocking accept would then block the shutdown as well.
    listener.setblocking(False)
    server = _Server(listener, encode, idle_timeout_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

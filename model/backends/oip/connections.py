"""Connections to one engine, kept open between requests for a limited time."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from model.backends.oip.errors import EngineFailed
from model.errors import DeadlineExceeded

# A connection is replaced after this time or this many requests, so that engines added behind a proxy or a service
# address get their share of the load.
MAX_AGE_S = 60.0
MAX_REQUESTS = 1000
CONNECT_LIMIT_S = 1.0
_MAX_RESPONSE_BYTES = 16 << 20  # the feature maps of one image as JSON take 2 MB
_DEFAULT_PORTS = {False: 80, True: 443}


class ConnectionLost(Exception):
    """The engine cannot be reached, or closed the connection. `was_kept` says whether the connection was reused."""

    def __init__(self, *, was_kept: bool) -> None:
        super().__init__()
        self.was_kept = was_kept


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True, slots=True)
class Transport:
    """How to reach every engine of an address. `tls` is None for plain HTTP; `token` is sent as a bearer token."""

    tls: ssl.SSLContext | None = None
    token: str | None = field(default=None, repr=False)


PLAIN = Transport()


class _Connection(http.client.HTTPConnection):
    """An HTTP/1.1 connection to the address `ip` of the host `name`."""

    def __init__(self, name: str, port: int, ip: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(name, port)
        self.default_port = _DEFAULT_PORTS[tls is not None]
        self._ip = ip
        self._tls = tls
        self.opened_at = time.monotonic()
        self.requests = 0

    def connect(self) -> None:
        """Open the socket, with TLS if it is configured. Raises OSError."""
        plain = socket.create_connection((self._ip, self.port), CONNECT_LIMIT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self.host)

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent: the connection is not too old, and the engine has not closed it."""
        young = time.monotonic() - self.opened_at < MAX_AGE_S and self.requests < MAX_REQUESTS
        return young and self.sock is not None and not _can_be_read(self.sock)


class Connections:
    """The connections to one engine, at the address `ip` of the host `name`. Thread-safe."""

    def __init__(self, name: str, port: int, ip: str, transport: Transport) -> None:
        self._open = partial(_Connection, name, port, ip, transport.tls)
        self._headers = {} if transport.token is None else {"Authorization": f"Bearer {transport.token}"}
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def exchange(
        self, method: str, path: str, until: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request and read its response before `until`, a time of time.monotonic().

        Raises ConnectionLost, DeadlineExceeded, EngineFailed.
        """
        connection = self._take()
        was_kept = connection.sock is not None
        try:
            reply = _exchange(connection, method, path, until, body, {**self._headers, **(headers or {})})
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, TimeoutError) and time.monotonic() >= until:
                raise DeadlineExceeded from error
            self.drop_idle()  # they lead to the same failed engine, which may have closed them too
            raise ConnectionLost(was_kept=was_kept) from error
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return reply

    def drop_idle(self) -> None:
        """Close the connections that no request uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all connections; those in use are closed when their request ends."""
        with self._lock:
            self._is_closed = True
        self.drop_idle()

    def _take(self) -> _Connection:
        """Return the most recently used connection that is usable, or a new one, which is not open yet."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._open()
            if connection.is_usable:
                return connection
            connection.close()

    def _keep(self, connection: _Connection) -> None:
        connection.requests += 1
        with self._lock:  # also for the check: otherwise `close` could miss this connection
            is_kept = not self._is_closed and connection.sock is not None  # None after `Connection: close`
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.close()


def _can_be_read(sock: socket.socket) -> bool:
    """Whether the engine has closed an idle connection, or sent data that no request asked for."""
    # Not select.select, which fails for descriptors of 1024 or more.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _exchange(
    connection: _Connection, method: str, path: str, until: float, body: bytes | None, headers: Mapping[str, str]
) -> Reply:
    """Send a request, and read the response in parts. Raises OSError, HTTPException, EngineFailed."""
    if connection.sock is None:
        connection.connect()
    sock = connection.sock
    _limit(sock, until)
    connection.request(method, path, body, headers)
    _limit(sock, until)
    response = connection.getresponse()
    parts, size = list[bytes](), 0
    while not response.isclosed():  # newer versions of Python close it after the last byte
        _limit(sock, until)
        part = response.read1(1 << 20)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > _MAX_RESPONSE_BYTES:
            raise EngineFailed("The response of the inference engine is too long")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    response.close()  # otherwise the connection does not accept the next request
    return Reply(response.status, response.headers, b"".join(parts))


def _limit(sock: socket.socket, until: float) -> None:
    """Make the next operation on the socket time out at `until`. Raises TimeoutError if that time has passed."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)

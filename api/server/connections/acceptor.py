"""Accepts connections: a limited number, each counted before its TLS handshake, which has a time limit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import Context
from functools import partial

import structlog

from api.server.connections.limiter import ConnectionLimiter
from api.server.connections.refusals import TOO_MANY_CONNECTIONS
from api.server.tls import ServerTls

BACKLOG = 2048  # how many connections the kernel queues until they are accepted
HANDSHAKE_LIMIT_S = 10.0
PAUSE_S = 1.0  # after the kernel has refused to accept a connection, for example because all descriptors are in use

log = structlog.get_logger("atalaya.access")

# Creates the protocol of a connection, which calls its argument once the connection is lost.
MakeProtocol = Callable[[Callable[[], None]], asyncio.Protocol]


class Acceptor:
    """Accepts the connections of a listener, and gives each a protocol once the TLS handshake is complete.

    `on_refused` is called with the code of the error when the limiter refuses a connection.

    asyncio's own server creates a protocol only after the handshake, so that connections without a complete handshake
    would not count.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: MakeProtocol,
        *,
        limiter: ConnectionLimiter,
        tls: ServerTls | None,
        on_refused: Callable[[str], object],
    ) -> None:
        self._listener = listener
        self._limiter = limiter
        self._on_refused = on_refused
        self._make_protocol = make_protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen, and accept connections from now on."""
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._resume()

    def stop(self, *, accept_backlog: bool) -> None:
        """Stop accepting; the caller closes the listener.

        With `accept_backlog`, first accept the connections in the kernel's backlog, because closing the listener would
        reset them. This ends when no slot is free, so a client that keeps connecting cannot prolong it.
        """
        while accept_backlog and self._accept():
            pass  # each call takes one connection from the backlog
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_for_handshakes(self, limit_s: float) -> None:
        """Wait until all accepted connections have a protocol. Those that need longer than `limit_s` are closed."""
        if self._connecting:
            _, late = await asyncio.wait(self._connecting, timeout=limit_s)
            for task in late:
                task.cancel()

    def _resume(self) -> None:
        self._pause = None
        # Accept one connection per event, so that connections are spread over the workers that share the listener.
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> bool:
        """Accept one connection. Returns False if there is none, or if the kernel or the limiter refuses it."""
        try:
            connection, (address, *_) = self._listener.accept()
        except (BlockingIOError, InterruptedError):  # the backlog is empty, or another worker was faster
            return False
        except ConnectionAbortedError:  # the client closed it; there may be another
            return True
        except OSError as error:
            log.error("connections_not_accepted", reason=error.strerror, retry_after_s=PAUSE_S)
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(PAUSE_S, self._resume)
            return False
        if not self._limiter.acquire(address):
            self._on_refused(TOO_MANY_CONNECTIONS)
            connection.close()
            return False
        # An empty context, so that the log lines of one connection never carry values of another.
        task = self._loop.create_task(self._connect(connection, address), context=Context())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: socket.socket, address: str) -> None:
        connection.setblocking(False)
        release = partial(self._limiter.release, address)
        tls = None if self._tls is None else self._tls.context  # the newest
        try:
            await self._loop.connect_accepted_socket(
                partial(self._make_protocol, release),
                connection,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_LIMIT_S if tls else None,
            )
        except (OSError, asyncio.CancelledError):  # the handshake failed, or took too long: no protocol has started
            release()

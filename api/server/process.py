"""One process that serves: uvicorn, with a start that fails in one line and an end that loses no request."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.lifespan.off import LifespanOff

from api.errors import SettingsError
from api.http.draining import Draining
from api.server.connections import BoundedProtocol, ConnectionLimiter
from api.server.tls import server_context
from api.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

# After the time that DRAIN_SECONDS gives clients to go elsewhere.
ANSWERS_LIMIT_S = 5  # for what is in flight
END_LIMIT_S = 7.5  # for that and for closing what was opened
# How long a thread may keep the interpreter while another wants it: the event loop's turns are short and many.
SWITCH_S = 0.001
FIRST_REQUEST_S = 1.0  # for a new connection to say what it wants


def listen_at(host: str, port: int, setting: str) -> list[socket.socket]:
    """Sockets bound to every address of `host`. Raises SettingsError, which names `setting` and the host."""
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound.append(listener := socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError as error:
        for listener in bound:
            listener.close()
        reason = "it is taken by another process" if error.errno == errno.EADDRINUSE else error.strerror
        raise SettingsError(f"{setting}: {host}, port {port}, cannot be listened at: {reason}.") from None
    return bound


class _Lifespan(LifespanOff):
    """Opens and closes the application without ASGI's messages in between, which would make a text of an error."""

    def __init__(self, app: FastAPI) -> None:
        self.should_exit = False
        self.state = {}
        self._opened = app.router.lifespan_context(app)

    async def startup(self) -> None:
        self.state.update(await self._opened.__aenter__() or {})

    async def shutdown(self) -> None:
        await self._opened.__aexit__(None, None, None)


class _Protocol(BoundedProtocol):
    """Lets a request that is on its way arrive, where uvicorn would close the connection under it."""

    def shutdown(self) -> None:
        if self._arriving or self.cycle is None:
            self.loop.call_later(FIRST_REQUEST_S, super().shutdown)
        else:
            super().shutdown()


class GatewayServer(uvicorn.Server):
    """Answers on for a while when it is told to stop, then finishes what is in flight, then closes.

    `draining` begins at the signal. `on_ready` is called once the first request can be taken.
    """

    def __init__(
        self, config: uvicorn.Config, draining: Draining, drain_s: float, on_ready: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config)
        self._draining = draining
        self._drain_s = drain_s
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        signal.signal(signal.SIGHUP, self.handle_exit)  # the terminal has gone: no reason to drop a request
        # What was made until now stays: the collector need not go through it again and again.
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(SWITCH_S)
        if self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._draining.begun:
            # Who waits at a terminal has no proxy in front.
            self._drain_s = 0 if sig == signal.SIGINT else self._drain_s
            # The kernel ends what does not end: no answer was given that is not on the record.
            signal.setitimer(signal.ITIMER_REAL, self._drain_s + END_LIMIT_S)
        self._draining.begin()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_s
        while loop.time() < until and not self.force_exit:  # noqa: ASYNC110  (uvicorn sets it from a signal)
            await asyncio.sleep(0.05)
        for listener in sockets or []:
            await self._take_waiting(listener)
        for server in self.servers:  # at once: who comes between is reset, not refused
            server.close()
        await super().shutdown(sockets)

    async def _take_waiting(self, listener: socket.socket) -> None:
        """Closing the listener would reset connections that the kernel has taken and nobody has accepted."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        limit_s = FIRST_REQUEST_S if tls else None
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            with suppress(OSError):
                await loop.connect_accepted_socket(
                    self._new_protocol, connection, ssl=tls, ssl_handshake_timeout=limit_s
                )

    def _new_protocol(self) -> asyncio.Protocol:
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def gateway_server(
    app: FastAPI, settings: Settings, draining: Draining, on_ready: Callable[[], None] | None = None
) -> GatewayServer:
    """A server of `app` for listeners that it is given when it runs. Raises SettingsError."""
    context = server_context(settings)
    places = ConnectionLimiter(behind_proxies=bool(settings.limits.trusted_proxies))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=cast(Any, partial(_Protocol, places=places)),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # TrustedProxies judges them
        timeout_graceful_shutdown=ANSWERS_LIMIT_S,
        ssl_context_factory=None if context is None else lambda *_: context,
    )
    config.load()
    config.lifespan_class = lambda _: _Lifespan(app)
    return GatewayServer(config, draining, settings.drain_seconds, on_ready)

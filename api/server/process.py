"""One serving process: uvicorn, with a one-line error if it cannot start, and a shutdown that loses no request."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.lifespan.off import LifespanOff

from api.http.draining import Draining
from api.server.connections.acceptor import Acceptor, MakeProtocol
from api.server.connections.limiter import ConnectionLimiter
from api.server.connections.memory import ConnectionMemory
from api.server.connections.protocol import BoundedProtocol
from api.server.connections.refusals import report_refusal
from api.server.stop_signals import STOP_SIGNALS
from api.server.successor import Successor
from api.server.timeouts import CUT_OFF_S, REPLACEMENT_DRAIN_S, RESPONSES_LIMIT_S, SHUTDOWN_LIMIT_S
from api.server.tls import ServerTls
from api.settings import Settings
from monitoring.logs.outputs import drain_logs

# How long a thread may hold the GIL while another waits: short, because the event loop runs often.
SWITCH_INTERVAL_S = 0.001
FIRST_REQUEST_LIMIT_S = 1.0  # for the first request of a connection that was accepted just before the shutdown

log = structlog.get_logger("atalaya.workers")


class _Lifespan(LifespanOff):
    """Opens and closes the application directly: ASGI's lifespan messages would turn an error into text."""

    def __init__(self, app: FastAPI) -> None:
        self.should_exit = False
        self.state = {}
        self._context = app.router.lifespan_context(app)

    async def startup(self) -> None:
        self.state.update(await self._context.__aenter__() or {})

    async def shutdown(self) -> None:
        """Do nothing: uvicorn does not call this after a second signal, so GatewayServer closes the application."""

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)


class _Protocol(BoundedProtocol):
    """Lets a request that is still arriving complete; uvicorn would close its connection."""

    def shutdown(self) -> None:
        if self.expects_request:
            self.loop.call_later(FIRST_REQUEST_LIMIT_S, super().shutdown)
        else:
            super().shutdown()


class GatewayServer(uvicorn.Server):
    """Keeps serving for `drain_s` after the signal to stop, then completes the requests in flight, then closes.

    `draining` begins at the signal, or when a stuck job requires a replacement of this process. For a replacement, the
    server closes after a fixed, short time, and `replacing` is true. If closing takes too long, `successor` is started;
    without one, the process exits and its supervisor starts another. `on_ready` is called once requests are accepted.
    `make_acceptor` creates the acceptor of each listener. `on_refused` is called with the code of the error when a
    connection is closed before the application has its request.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        make_acceptor: Callable[[socket.socket, MakeProtocol], Acceptor],
        on_refused: Callable[[str], object],
        draining: Draining,
        drain_s: float,
        on_ready: Callable[[], None] | None = None,
        successor: Successor | None = None,
    ) -> None:
        super().__init__(config)
        self.servers = []  # uvicorn's own, which count no connection before its TLS handshake is complete
        self._make_acceptor = make_acceptor
        self._on_refused = on_refused
        self._acceptors: list[Acceptor] = []
        self._memory = ConnectionMemory()
        self._draining = draining
        self._drain_s = drain_s
        self._on_ready = on_ready
        self._successor = successor
        self._signalled = False

    @property
    def replacing(self) -> bool:
        """Whether the process is to be replaced; a signal to stop prevents that."""
        return self._draining.replacement_due and not self._signalled

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, and close the event loop. A later signal must not raise an exception meanwhile."""
        previous = {number: signal.signal(number, self.handle_exit) for number in STOP_SIGNALS}
        try:
            super().run(sockets)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self._acceptors = [self._make_acceptor(listener, self._make_protocol) for listener in sockets or []]
        for acceptor in self._acceptors:
            acceptor.start()
        self.started = True
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
            signal.signal(signal.SIGHUP, self.handle_exit)  # requests in flight also complete when the terminal closes
        # The objects created so far live as long as the process, so the garbage collector need not visit them.
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._signalled:
            self._signalled = True
            # Ctrl-C comes from a terminal, so there is no load balancer that has to redirect its clients first.
            self._drain_s = 0 if sig == signal.SIGINT else self._drain_s
            # If the shutdown hangs, SIGALRM kills the process. Every prediction sent so far is in the ledger.
            signal.setitimer(signal.ITIMER_REAL, self._drain_s + SHUTDOWN_LIMIT_S)
            if os.getpid() == 1:  # the kernel delivers to process 1 only signals that have a handler
                timer = threading.Timer(self._drain_s + SHUTDOWN_LIMIT_S, os._exit, (1,))
                timer.daemon = True
                timer.start()
            if self._successor is not None:
                self._successor.drop_listeners()
        self._draining.begin()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self.replacing and not self.should_exit:
            self._start_replacement()
        return await super().on_tick(counter)

    def _start_replacement(self) -> None:
        log.warning("process_replacing", seconds=REPLACEMENT_DRAIN_S)
        self.should_exit = True
        self._drain_s = REPLACEMENT_DRAIN_S
        if self._successor is not None:
            self._successor.keep_listeners()
        # A thread, because the event loop may hang as well.
        timer = threading.Timer(REPLACEMENT_DRAIN_S + SHUTDOWN_LIMIT_S, self._force_replacement)
        timer.daemon = True
        timer.start()

    def _force_replacement(self) -> None:
        if not self.replacing:
            return
        log.error("process_not_closed", policy="the process is replaced, and requests in flight are lost")
        if self._successor is not None:
            self._successor.start()
        drain_logs()
        os._exit(1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_s
        while loop.time() < until and not self.force_exit:  # noqa: ASYNC110  (uvicorn sets it in a signal handler)
            await asyncio.sleep(0.05)
        loop.call_later(CUT_OFF_S, self._draining.cut_off)
        for acceptor in self._acceptors:
            # If this process is being replaced, leave the connections in the backlog to the next process.
            acceptor.stop(accept_backlog=not self.replacing)
        for listener in sockets or []:  # at once: connections made before the close are reset
            listener.close()
        await asyncio.gather(*(acceptor.wait_for_handshakes(FIRST_REQUEST_LIMIT_S) for acceptor in self._acceptors))
        await super().shutdown(sockets)
        if self.force_exit:  # a second signal: requests in progress are not awaited
            for task in self.server_state.tasks:
                task.cancel()
        await self.lifespan.close()

    def _make_protocol(self, on_closed: Callable[[], None]) -> asyncio.Protocol:
        return _Protocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            memory=self._memory,
            on_closed=on_closed,
            on_refused=self._on_refused,
        )


def make_server(
    app: FastAPI,
    settings: Settings,
    draining: Draining,
    on_ready: Callable[[], None] | None = None,
    successor: Successor | None = None,
    *,
    tls: ServerTls | None = None,
) -> GatewayServer:
    """Create a server of `app`; `run` takes its listeners."""
    on_refused = partial(report_refusal, app.state.metrics.connections_refused)
    make_acceptor = partial(
        Acceptor,
        limiter=ConnectionLimiter(behind_proxies=bool(settings.limits.trusted_proxies)),
        tls=tls,
        on_refused=on_refused,
    )
    config = uvicorn.Config(
        app,
        workers=1,  # without it, uvicorn reads WEB_CONCURRENCY itself, and fails if it is empty
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the TrustedProxies middleware reads them
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=RESPONSES_LIMIT_S,
    )
    config.load()
    config.lifespan_class = lambda _: _Lifespan(app)
    return GatewayServer(config, make_acceptor, on_refused, draining, settings.drain_seconds, on_ready, successor)

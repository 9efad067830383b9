"""How connections are accepted: their number, the time for a TLS handshake, and a kernel that refuses."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import cast

import pytest

from api.server.connections import acceptor as acceptor_module
from api.server.connections.acceptor import Acceptor
from api.server.connections.limiter import ConnectionLimiter
from api.server.tls import ServerTls, open_tls
from api.settings import Settings
from tests.support.certificates import make_authority
from tests.support.polling import PATIENCE_S, wait_until_async


class Greeting(asyncio.Protocol):
    """Sends a byte and closes the connection."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own
        transport.write(b"!")
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed()


@pytest.fixture
def limiter() -> ConnectionLimiter:
    limiter = ConnectionLimiter(behind_proxies=True)
    limiter.capacity = 1
    return limiter


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    certificate, key = make_authority(tmp_path / "pki").issue("CN=gateway")
    tls = open_tls(Settings(tls_certificate=certificate, tls_key=key))
    assert tls is not None
    return tls


@asynccontextmanager
async def accepting(
    limiter: ConnectionLimiter, tls: ServerTls | None, on_refused: Callable[[str], object] = lambda _: None
) -> AsyncIterator[tuple[str, int]]:
    """Accept connections on the address that this yields."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        acceptor = Acceptor(listener, Greeting, limiter=limiter, tls=tls, on_refused=on_refused)
        acceptor.start()
        yield listener.getsockname()
        acceptor.stop(accept_backlog=False)
        await acceptor.wait_for_handshakes(0)


async def receive(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 10), PATIENCE_S)
    except ConnectionResetError:
        return b""


def is_free(limiter: ConnectionLimiter) -> bool:
    if not limiter.acquire("192.0.2.1"):
        return False
    limiter.release("192.0.2.1")
    return True


async def test_a_closed_connection_can_be_replaced(limiter: ConnectionLimiter) -> None:
    """A connection takes a slot until it is closed."""
    async with accepting(limiter, None) as address:
        for _ in range(3):
            with closing(socket.create_connection(address)) as connection:
                assert await receive(connection) == b"!"
            await wait_until_async(lambda: is_free(limiter))


async def test_a_connection_counts_before_its_handshake(limiter: ConnectionLimiter, tls: ServerTls) -> None:
    """A connection whose handshake has not begun takes a slot, and gives it back when the client leaves.

    Another one is refused, which is reported.
    """
    refusals = list[str]()
    async with accepting(limiter, tls, refusals.append) as address:
        with closing(socket.create_connection(address)):
            await wait_until_async(lambda: not is_free(limiter))
            with closing(socket.create_connection(address)) as second:
                assert await receive(second) == b""
            assert refusals == ["too_many_connections"]
        await wait_until_async(lambda: is_free(limiter))


async def test_a_handshake_has_a_time_limit(
    limiter: ConnectionLimiter, tls: ServerTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection on which no handshake begins is closed, and its slot is free again."""
    monkeypatch.setattr(acceptor_module, "HANDSHAKE_LIMIT_S", 0.2)
    async with accepting(limiter, tls) as address:
        with closing(socket.create_connection(address)) as idle:
            assert await receive(idle) == b""
        await wait_until_async(lambda: is_free(limiter))


async def test_a_handshake_that_fails_frees_the_slot(limiter: ConnectionLimiter, tls: ServerTls) -> None:
    """Bytes that are no TLS close the connection, and its slot is free again."""
    async with accepting(limiter, tls) as address:
        with closing(socket.create_connection(address)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await receive(plain)  # an alert, or nothing
        await wait_until_async(lambda: is_free(limiter))


async def test_accepting_goes_on_after_the_kernel_has_refused(
    limiter: ConnectionLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While all descriptors are in use, connections wait in the kernel, and are accepted later."""
    monkeypatch.setattr(acceptor_module, "PAUSE_S", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with accepting(limiter, None) as address:
        with closing(socket.create_connection(address)) as connection:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            held = [os.dup(connection.fileno()) for _ in range(len(os.listdir("/proc/self/fd")), highest + 10)]
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(receive(connection), 0.3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in held:
                    os.close(descriptor)
            assert await receive(connection) == b"!"


async def test_a_full_backlog_does_not_prolong_the_stop(limiter: ConnectionLimiter) -> None:
    """When accepting stops, connections of the backlog are accepted until no slot is free, and the others are left."""
    limiter.capacity = 2
    refusals = list[str]()
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        acceptor = Acceptor(listener, Greeting, limiter=limiter, tls=None, on_refused=refusals.append)
        acceptor.start()
        clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(5)]
        acceptor.stop(accept_backlog=True)
        listener.close()
        await acceptor.wait_for_handshakes(PATIENCE_S)
        received = [await receive(client) for client in clients]
    assert received == [b"!", b"!", b"", b"", b""]
    assert refusals == ["too_many_connections"]

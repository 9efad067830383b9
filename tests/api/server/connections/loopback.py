"""A connection over loopback to a BoundedProtocol that runs an ASGI application."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from api.server.connections.memory import ConnectionMemory
from api.server.connections.protocol import BoundedProtocol
from tests.support.polling import PATIENCE_S, wait_until_async


class Connection:
    """A client's connection, and the protocol at the other end, which sets `lost` once it has lost the connection.

    `refusals` has the codes of the errors that closed it before the application had its request.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        protocol: BoundedProtocol,
        lost: asyncio.Event,
        refusals: list[str],
    ) -> None:
        self.writer = writer
        self.protocol = protocol
        self.lost = lost
        self.refusals = refusals
        self._reader = reader

    async def receive_statuses(self) -> list[int]:
        """Read until the server closes the connection."""
        received = await asyncio.wait_for(self._reader.read(), PATIENCE_S)
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


@asynccontextmanager
async def connect_to(application: Callable[..., Any]) -> AsyncIterator[Connection]:
    config = uvicorn.Config(application, log_config=None)
    config.load()
    state, memory, protocols, lost = ServerState(), ConnectionMemory(), list[BoundedProtocol](), asyncio.Event()
    refusals = list[str]()

    def make_protocol() -> BoundedProtocol:
        protocols.append(
            BoundedProtocol(
                config=config,
                server_state=state,
                app_state={"state": 1},
                memory=memory,
                on_closed=lost.set,
                on_refused=refusals.append,
            )
        )
        return protocols[-1]

    server = await asyncio.get_running_loop().create_server(make_protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        await wait_until_async(lambda: bool(protocols))
        yield Connection(reader, writer, protocols[0], lost, refusals)
    finally:
        writer.close()
        server.close()
        await wait_until_async(lambda: lost.is_set() and not state.tasks)

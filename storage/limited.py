"""Connections to PostgreSQL that are closed when the server does not respond in time.

PostgreSQL's own limits end a slow statement, but have no effect if the server, or a pooler in front of it, hangs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg.abc import RV, PQGen
from psycopg.waiting import wait_async


class LimitedConnection(AsyncConnection[Any]):
    """Waits at most `limit_s` seconds for the response to each statement, and then raises OperationalError.

    A cancelled statement ends at once. psycopg would first ask the server to cancel it, and wait up to ten seconds.
    """

    limit_s: float | None = None

    @classmethod
    async def open(cls, limit_s: float, *arguments: Any, **parameters: Any) -> LimitedConnection:
        """Connect like `connect`, and then limit each statement to `limit_s` seconds."""
        connection = await cls.connect(*arguments, **parameters)
        connection.limit_s = limit_s
        return connection

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(self.limit_s):
                return await wait_async(gen, self.pgconn.socket, interval, timeout)
        except TimeoutError:
            self.pgconn.finish()
            raise OperationalError("timeout expired: the server has not responded") from None
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise

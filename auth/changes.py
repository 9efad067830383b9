"""Propagates revocations and changes of credentials to every process within a second, without a query per request.

Each change is a row. Its number comes from a counter that stays locked until the commit, so numbers become visible in
order: a process that has read number n has read all lower ones. Processes read new rows four times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.tables import change_counter, changes
from storage.errors import DatabaseUnavailable
from storage.transactions import reading

POLL_S = 0.25

log = structlog.get_logger("atalaya.changes")

OnChange = Callable[[str], None]


async def announce(connection: AsyncConnection, target: str, *, revoked: bool, expires_at: datetime) -> None:
    """Announce a change, in the transaction that makes it.

    `target` is a kind and an id ("sid:…", "jti:…", "client:…", "user:…", "key:…"). If `revoked`, every process rejects
    credentials that name the target until `expires_at`, by which time they have expired; otherwise every process
    verifies them again.
    """
    await connection.execute(delete(changes).where(changes.c.expires_at < datetime.now(UTC)))
    increment = update(change_counter).values(seq=change_counter.c.seq + 1).returning(change_counter.c.seq)
    seq = (await connection.execute(increment)).scalar_one()
    values = {"seq": seq, "target": target, "revoked": int(revoked), "expires_at": expires_at}
    await connection.execute(insert(changes).values(**values))


class ChangeFeed:
    """The revocations that this process knows. While the database is unavailable, it uses the last known state."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seen = 0
        self._revoked: dict[str, datetime] = {}
        self._listeners: list[OnChange] = []
        self._read_at = time.monotonic()

    @property
    def version(self) -> int:
        """Grows with each change that this process reads."""
        return self._seen

    @property
    def age_s(self) -> float:
        """Seconds since the last successful read."""
        return time.monotonic() - self._read_at

    def subscribe(self, listener: OnChange) -> None:
        """Call `listener` with the target of every change from now on."""
        self._listeners.append(listener)

    def is_revoked(self, target: str) -> bool:
        return target in self._revoked

    async def catch_up(self) -> None:
        """Read the new changes. Raises DatabaseUnavailable."""
        async with reading(self._engine) as connection:
            statement = select(changes).where(changes.c.seq > self._seen).order_by(changes.c.seq)
            rows = (await connection.execute(statement)).all()
        self._read_at = time.monotonic()
        for row in rows:
            self._seen = max(self._seen, row.seq)
            if row.revoked:
                self._revoked[row.target] = row.expires_at
            for listener in self._listeners:
                listener(row.target)
        if rows:
            now = datetime.now(UTC)
            self._revoked = {target: until for target, until in self._revoked.items() if until > now}

    async def follow(self) -> None:
        """Catch up four times a second until cancelled."""
        reachable = True
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.catch_up()
            except DatabaseUnavailable:
                if reachable:
                    log.warning("revocations_unreachable", policy="use the last known state")
                reachable = False
            else:
                reachable = True

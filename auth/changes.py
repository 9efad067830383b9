"""How every process hears within a second that a credential was revoked or changed, without a query a request.

Each change is a row, numbered under the lock of one counter, so that the numbers become visible in their order: who
has seen number n has seen all before it. Processes read what is new four times a second.
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
    """Add a change to the transaction of what it tells of.

    `target` is a kind and an id ("sid:…", "jti:…", "client:…", "user:…", "key:…"). With `revoked`, whatever names
    the target is refused until `expires_at`, after which it has expired by itself; without, it is read anew.
    """
    await connection.execute(delete(changes).where(changes.c.expires_at < datetime.now(UTC)))
    counted = update(change_counter).values(seq=change_counter.c.seq + 1).returning(change_counter.c.seq)
    seq = (await connection.execute(counted)).scalar_one()
    values = {"seq": seq, "target": target, "revoked": int(revoked), "expires_at": expires_at}
    await connection.execute(insert(changes).values(**values))


class ChangeFeed:
    """What this process knows of revocations. While the database is away, it goes by what it knew last."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seen = 0
        self._revoked: dict[str, datetime] = {}
        self._listeners: list[OnChange] = []
        self._read_at = time.monotonic()

    @property
    def version(self) -> int:
        """Grows with each change that this process hears of."""
        return self._seen

    @property
    def age_s(self) -> float:
        """Seconds since the database last answered."""
        return time.monotonic() - self._read_at

    def subscribe(self, listener: OnChange) -> None:
        """Call `listener` with the target of every change from now on."""
        self._listeners.append(listener)

    def is_revoked(self, target: str) -> bool:
        return target in self._revoked

    async def catch_up(self) -> None:
        """Read what is new. Raises DatabaseUnavailable."""
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
        """Catch up four times a second, for ever."""
        reachable = True
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.catch_up()
            except DatabaseUnavailable:
                if reachable:
                    log.warning("revocations_unreachable", policy="go by what is known")
                reachable = False
            else:
                reachable = True

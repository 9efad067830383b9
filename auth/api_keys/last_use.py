"""Records when API keys were last used: in memory at once, in the database every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import bindparam, or_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.tables import api_keys
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

WRITE_EVERY_S = 3.0
_BATCH = 200  # keys in one transaction, for which other transactions may have to wait


class LastUseRecorder:
    """Collects the last uses, and keeps them until they can be written to the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._unwritten: dict[str, datetime] = {}

    def record(self, key_id: str) -> None:
        """Record that the key is used now."""
        self._unwritten[key_id] = datetime.now(UTC)

    async def write(self) -> None:
        """Write the recorded uses, except where another process has written a later one. Raises DatabaseUnavailable."""
        # All processes lock the rows in the same order, so that they cannot deadlock.
        uses = sorted(self._unwritten.items())
        if not uses:
            return
        last, used_at = api_keys.c.last_used_at, bindparam("used_at", type_=api_keys.c.last_used_at.type)
        older = api_keys.c.id == bindparam("key_id"), or_(last.is_(None), last < used_at)
        statement = update(api_keys).where(*older).values(last_used_at=used_at)
        for start in range(0, len(uses), _BATCH):
            batch = uses[start : start + _BATCH]
            async with writing(self._engine) as connection:
                await connection.execute(statement, [{"key_id": key_id, "used_at": used} for key_id, used in batch])
            for key_id, used in batch:
                if self._unwritten[key_id] == used:
                    del self._unwritten[key_id]

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Write every few seconds until cancelled."""
        while True:
            await sleep(WRITE_EVERY_S)
            await self.close()

    async def close(self) -> None:
        """Write the recorded uses if the database is available."""
        with suppress(DatabaseUnavailable):
            await self.write()

"""Records when API keys were last used: in memory at once, in the database every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.tables import api_keys
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

WRITE_EVERY_S = 3.0


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
        async with writing(self._engine) as connection:
            for key_id, used_at in uses:
                last = api_keys.c.last_used_at
                older = api_keys.c.id == key_id, or_(last.is_(None), last < used_at)
                await connection.execute(update(api_keys).where(*older).values(last_used_at=used_at))
        for key_id, used_at in uses:
            if self._unwritten[key_id] == used_at:
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

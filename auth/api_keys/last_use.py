"""When keys were last used: noted in memory, written every few seconds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.tables import api_keys
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

WRITE_EVERY_S = 3.0


class LastUseRecorder:
    """What one process has seen of keys. While the database is away, it keeps the last use of each."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seen: dict[str, datetime] = {}

    def record(self, key_id: str) -> None:
        self._seen[key_id] = datetime.now(UTC)

    async def write(self) -> None:
        """Write what was noted, unless another process has seen a later use. Raises DatabaseUnavailable."""
        # In one order for all processes: else two could each wait for a row that the other has locked.
        written = sorted(self._seen.items())
        if not written:
            return
        async with writing(self._engine) as connection:
            for key_id, at in written:
                last = api_keys.c.last_used_at
                older = api_keys.c.id == key_id, or_(last.is_(None), last < at)
                await connection.execute(update(api_keys).where(*older).values(last_used_at=at))
        for key_id, at in written:
            if self._seen[key_id] == at:
                del self._seen[key_id]

    async def follow(self) -> None:
        """Write every few seconds, for ever."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.close()

    async def close(self) -> None:
        """Write what can be written now."""
        with suppress(DatabaseUnavailable):
            await self.write()

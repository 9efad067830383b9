"""The database, for commands that work without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from api.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


def with_engine(settings: Settings, act: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Run `act` on the settings' database, migrated first, in an event loop of its own."""
    from auth.database import migrate, open_engine

    async def run() -> T:
        engine = open_engine(settings.database_url.get_secret_value())
        try:
            await migrate(engine)
            return await act(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())

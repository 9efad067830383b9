from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
from storage.engine import open_engine
from storage.migrations import migrate


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A migrated database of either kind."""
    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS)
    yield engine
    await engine.dispose()

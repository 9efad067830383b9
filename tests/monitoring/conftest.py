from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.stores import audit_store
from auth.database import migrate, open_engine
from monitoring.audit import MIGRATIONS
from monitoring.audit.store import AuditStore


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A database of either kind, with the record's tables."""
    engine = open_engine(database_url)
    await migrate(engine, MIGRATIONS)
    yield engine
    await engine.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> AuditStore:
    return audit_store(engine)

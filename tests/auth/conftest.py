from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
from auth.accounts.passwords import PasswordHasher
from storage.engine import open_engine
from storage.migrations import migrate


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A migrated database."""
    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS)
    yield engine
    await engine.dispose()


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    with closing(PasswordHasher()) as hasher:
        yield hasher

"""A migrated SQLite or PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.engine import open_blocking_engine


@pytest.fixture
def url(engine: AsyncEngine, database_url: str) -> str:
    """The URL of the database."""
    assert engine.dialect.name in database_url
    return database_url


@pytest.fixture
def blocking(url: str) -> Iterator[Engine]:
    """A synchronous engine, for code that runs in threads."""
    engine = open_blocking_engine(url, 30)
    yield engine
    engine.dispose()

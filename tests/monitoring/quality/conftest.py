"""A migrated database of either kind."""

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
    """An engine for threads."""
    engine = open_blocking_engine(url, 30)
    yield engine
    engine.dispose()

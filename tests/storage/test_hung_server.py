"""A PostgreSQL server that accepts connections but does not respond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import ping, reading
from tests.support import postgres
from tests.support.requirements import missing

SOON_S = 5.0
"""Less than the ten seconds that psycopg takes to cancel a statement."""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    """A server that only these tests suspend."""
    try:
        with postgres.running() as server:
            yield server
    except LookupError as error:
        missing(str(error))


@pytest.fixture
async def engine(server: postgres.Postgres) -> AsyncIterator[AsyncEngine]:
    """An engine with one open connection."""
    engine = open_engine(f"{server.url}/postgres", wait_s=1)
    await ping(engine)
    yield engine
    await engine.dispose()


async def test_statement_without_a_response_fails(server: postgres.Postgres, engine: AsyncEngine) -> None:
    """A statement that PostgreSQL does not respond to raises DatabaseUnavailable, and later ones succeed."""
    with ExitStack() as suspension:

        async def suspend_and_select() -> None:
            async with reading(engine) as connection:
                suspension.enter_context(server.hung())
                await connection.execute(text("SELECT 1"))

        with pytest.raises(DatabaseUnavailable) as caught:
            await suspend_and_select()
        assert "did not respond in time" in (caught.value.reason or "")
        with pytest.raises(DatabaseUnavailable):
            await ping(engine)
    await ping(engine)


async def test_cancelled_statement_ends_at_once(server: postgres.Postgres, engine: AsyncEngine) -> None:
    """Cancelling a statement does not wait for a server that does not respond."""
    with server.hung():
        for _ in range(2):  # on an open connection, and while a new one is made
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ping(engine)
            assert time.monotonic() - began < SOON_S
    await ping(engine)


async def sleep_in_the_database(engine: AsyncEngine) -> None:
    async with reading(engine) as connection:
        await connection.execute(text("SELECT pg_sleep(60)"))


async def test_slow_statement_is_ended_by_the_server(engine: AsyncEngine) -> None:
    """PostgreSQL itself ends a statement at its time limit, so that the connection stays open."""
    async with engine.connect() as connection:
        before = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    with pytest.raises(DatabaseUnavailable):
        await sleep_in_the_database(engine)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one() == before

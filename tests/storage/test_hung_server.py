"""A PostgreSQL server that accepts connections but does not respond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import ping, reading
from tests.support import postgres
from tests.support.polling import PATIENCE_S
from tests.support.requirements import missing

SOON_S = 5.0
"""Less than the ten seconds that psycopg takes to cancel a statement."""
ATTEMPTS = 3
"""A pause of this process or the server's can exceed a time limit in one attempt, but hardly in each of them."""


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
    await ping_until_it_responds(engine)
    yield engine
    await engine.dispose()


async def ping_until_it_responds(engine: AsyncEngine) -> None:
    """Ping a server that runs, but that may take longer than a second on a busy machine."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(DatabaseUnavailable):
                return await ping(engine)


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
    await ping_until_it_responds(engine)


async def test_cancelled_statement_ends_at_once(server: postgres.Postgres, engine: AsyncEngine) -> None:
    """Cancelling a statement does not wait for a server that does not respond."""
    attempts = []
    for _ in range(ATTEMPTS):
        with server.hung():  # on an open connection, and while a new one is made
            attempts.append([await measure_cancelled_ping(engine) for _ in range(2)])
        await ping_until_it_responds(engine)
    assert all(min(times) < SOON_S for times in zip(*attempts, strict=True))


async def measure_cancelled_ping(engine: AsyncEngine) -> float:
    """Cancel a ping after a tenth of a second, and return how many seconds it took to end."""
    pinging = asyncio.create_task(ping(engine))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    pinging.cancel()
    # After a pause of this process, the limit of the connection may have ended the ping already.
    with pytest.raises((asyncio.CancelledError, DatabaseUnavailable)):
        await pinging
    return time.monotonic() - began


async def sleep_in_the_database(engine: AsyncEngine) -> None:
    async with reading(engine) as connection:
        await connection.execute(text("SELECT pg_sleep(60)"))


async def test_slow_statement_is_ended_by_the_server(engine: AsyncEngine) -> None:
    """PostgreSQL itself ends a statement at its time limit, so that the connection stays open."""
    attempts = 1
    while not await is_open_after_a_slow_statement(engine):
        attempts += 1
        assert attempts <= ATTEMPTS


async def is_open_after_a_slow_statement(engine: AsyncEngine) -> bool:
    """Return whether the connection is still open: the server has a second before this process would close it."""
    await ping_until_it_responds(engine)
    with suppress(DatabaseUnavailable):
        before = await read_process_id(engine)
        with pytest.raises(DatabaseUnavailable):
            await sleep_in_the_database(engine)
        return await read_process_id(engine) == before
    return False


async def read_process_id(engine: AsyncEngine) -> int:
    async with reading(engine) as connection:
        return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())

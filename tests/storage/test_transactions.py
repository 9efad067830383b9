"""How the tasks of a process share the one writer that SQLite allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import MAX_PAUSE_S, writing


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TABLE numbers (number INTEGER)"))
    yield engine
    await engine.dispose()


async def test_one_task_at_a_time_writes_to_sqlite(engine: AsyncEngine) -> None:
    """At most one task of a process competes with the other processes for the lock, in the order of arrival."""
    most = 0

    async def write(number: int) -> None:
        nonlocal most
        async with writing(engine) as connection:
            most = max(most, engine.pool.checkedout())  # type: ignore[attr-defined]  # of the pool for files
            await connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})

    await asyncio.gather(*(write(number) for number in range(20)))
    async with engine.connect() as connection:
        written = (await connection.execute(text("SELECT number FROM numbers ORDER BY rowid"))).scalars().all()
    assert (most, written) == (1, list(range(20)))


async def test_a_transaction_is_followed_by_a_pause(engine: AsyncEngine) -> None:
    """After a short transaction, other processes can take the lock for as long as the transaction took."""
    clock = asyncio.get_running_loop().time
    async with writing(engine):
        began = clock()
        await asyncio.sleep(MAX_PAUSE_S / 2)
        took = clock() - began
    async with writing(engine):
        assert clock() - began >= took + min(took, MAX_PAUSE_S)


async def test_the_pause_after_a_slow_transaction_is_short(engine: AsyncEngine) -> None:
    """A transaction that took long, perhaps because it waited for another process, does not delay the next one."""
    clock = asyncio.get_running_loop().time
    async with writing(engine):
        await asyncio.sleep(10 * MAX_PAUSE_S)
    ended = clock()
    async with writing(engine):
        assert clock() - ended < 9 * MAX_PAUSE_S


async def test_a_task_that_is_cancelled_in_the_pause_lets_the_next_one_write(engine: AsyncEngine) -> None:
    """The cancellation is not replaced by another error, and the turn ends."""
    async with writing(engine):
        await asyncio.sleep(0.1)

    async def write() -> None:
        async with writing(engine):
            pytest.fail("the task was cancelled in the pause")

    task = asyncio.create_task(write())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with writing(engine) as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


async def test_a_task_waits_a_limited_time_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that cannot write in time gets the error of a locked database, and the next one can write."""
    monkeypatch.setattr("storage.engine.SQLITE_WAIT_S", 0.05)
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    async with writing(engine):
        with pytest.raises(DatabaseUnavailable):
            async with writing(engine):
                pytest.fail("two tasks write at the same time")
    async with writing(engine) as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    await engine.dispose()

"""The feed of changes, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from auth.changes import ChangeFeed, announce
from auth.tables import changes
from storage.engine import open_engine
from storage.transactions import reading, writing

LATER = timedelta(hours=1)


async def tell(engine: AsyncEngine, target: str, *, revoked: bool = True, lasts: timedelta = LATER) -> None:
    async with writing(engine) as connection:
        await announce(connection, target, revoked=revoked, expires_at=datetime.now(UTC) + lasts)


async def test_a_revocation_reaches_every_process(engine: AsyncEngine) -> None:
    """What one process announces, each other knows once it has caught up."""
    feeds = [ChangeFeed(engine), ChangeFeed(engine)]
    await tell(engine, "jti:1")
    for feed in feeds:
        assert not feed.is_revoked("jti:1")
        await feed.catch_up()
        assert feed.is_revoked("jti:1")


async def test_a_change_is_no_revocation(engine: AsyncEngine) -> None:
    """A target that changed is told to the listeners, and not refused."""
    feed, heard = ChangeFeed(engine), list[str]()
    feed.subscribe(heard.append)
    await tell(engine, "key:1", revoked=False)
    await feed.catch_up()
    await feed.catch_up()
    assert heard == ["key:1"]
    assert not feed.is_revoked("key:1")


async def test_nothing_is_missed_or_told_twice(engine: AsyncEngine) -> None:
    """A process that reads while others write hears every change once, in their order."""
    feed, heard = ChangeFeed(engine), list[str]()
    feed.subscribe(heard.append)
    told = [f"jti:{index}" for index in range(40)]
    writers = asyncio.gather(*(tell(engine, target) for target in told))
    while not writers.done():
        await feed.catch_up()
    await writers
    await feed.catch_up()
    assert sorted(heard) == sorted(told)
    assert feed.version == 40


async def test_an_undone_transaction_tells_nothing(engine: AsyncEngine) -> None:
    """A change is as lasting as the transaction it was part of."""
    feed = ChangeFeed(engine)
    async with engine.connect() as connection:
        await announce(connection, "jti:1", revoked=True, expires_at=datetime.now(UTC) + LATER)
        await connection.rollback()
    await feed.catch_up()
    assert not feed.is_revoked("jti:1")


async def test_what_has_expired_is_forgotten(engine: AsyncEngine) -> None:
    """A revocation is kept until what it names would have expired: in the table and in memory."""
    feed = ChangeFeed(engine)
    await tell(engine, "jti:old", lasts=timedelta(seconds=-1))
    await tell(engine, "jti:new")
    await feed.catch_up()
    assert not feed.is_revoked("jti:old")
    assert feed.is_revoked("jti:new")
    async with reading(engine) as connection:
        assert (await connection.execute(select(func.count()).select_from(changes))).scalar_one() == 1


async def test_without_a_database_the_last_word_holds() -> None:
    """While the database is away the feed says so once, and goes on trying."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    feed = ChangeFeed(engine)
    with capture_logs() as logs:
        following = asyncio.create_task(feed.follow())
        async with asyncio.timeout(30):
            while not logs:  # noqa: ASYNC110  (nothing tells of a log line)
                await asyncio.sleep(0.05)
    assert not following.done()
    following.cancel()
    await engine.dispose()
    assert [line["event"] for line in logs] == ["revocations_unreachable"]
    assert feed.age_s > 0

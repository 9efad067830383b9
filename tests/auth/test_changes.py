"""The change feed, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from auth.changes import ChangeFeed, announce
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

LATER = timedelta(hours=1)


async def announce_change(engine: AsyncEngine, target: str, *, revoked: bool = True, lasts: timedelta = LATER) -> None:
    async with writing(engine) as connection:
        await announce(connection, target, revoked=revoked, expires_at=datetime.now(UTC) + lasts)


async def test_a_revocation_reaches_every_process(engine: AsyncEngine) -> None:
    """A revocation that one process announces is known to every other one that has caught up."""
    feeds = [ChangeFeed(engine), ChangeFeed(engine)]
    await announce_change(engine, "jti:1")
    for feed in feeds:
        assert not feed.is_revoked("jti:1")
        await feed.catch_up()
        assert feed.is_revoked("jti:1")


async def test_a_change_is_not_a_revocation(engine: AsyncEngine) -> None:
    """A changed target is passed to the listeners once, and is not revoked."""
    feed, received = ChangeFeed(engine), list[str]()
    feed.subscribe(received.append)
    await announce_change(engine, "key:1", revoked=False)
    await feed.catch_up()
    await feed.catch_up()
    assert received == ["key:1"]
    assert not feed.is_revoked("key:1")


async def test_every_change_is_read_exactly_once(engine: AsyncEngine) -> None:
    """A process that reads while others write receives every change exactly once."""
    feed, received = ChangeFeed(engine), list[str]()
    feed.subscribe(received.append)
    targets = [f"jti:{index}" for index in range(40)]
    writers = asyncio.gather(*(announce_change(engine, target) for target in targets))
    while not writers.done():
        await feed.catch_up()
    await writers
    await feed.catch_up()
    assert sorted(received) == sorted(targets)
    assert feed.version == 40


async def test_a_rolled_back_change_is_not_announced(engine: AsyncEngine) -> None:
    """A change is announced only if its transaction is committed."""
    feed = ChangeFeed(engine)
    async with engine.connect() as connection:
        await announce(connection, "jti:1", revoked=True, expires_at=datetime.now(UTC) + LATER)
        await connection.rollback()
    await feed.catch_up()
    assert not feed.is_revoked("jti:1")


async def test_expired_revocations_are_ignored(engine: AsyncEngine) -> None:
    """A revocation has no effect once its target has expired."""
    feed = ChangeFeed(engine)
    await announce_change(engine, "jti:old", lasts=timedelta(seconds=-1))
    await announce_change(engine, "jti:new")
    await feed.catch_up()
    assert not feed.is_revoked("jti:old")
    assert feed.is_revoked("jti:new")


async def test_many_changes_are_announced_and_read_together(engine: AsyncEngine) -> None:
    """Any number of targets can be announced at once, and all are read, in order."""
    feed, received = ChangeFeed(engine), list[str]()
    feed.subscribe(received.append)
    targets = [f"sid:{index}" for index in range(2500)]
    async with writing(engine) as connection:
        await announce(connection, *targets, revoked=True, expires_at=datetime.now(UTC) + LATER)
        await announce(connection, revoked=True, expires_at=datetime.now(UTC) + LATER)
    await announce_change(engine, "jti:last")
    await feed.catch_up()
    assert received == [*targets, "jti:last"]
    assert feed.version == 2501


async def test_the_feed_keeps_trying_without_a_database() -> None:
    """While the database is unavailable, the feed logs it once and continues to try."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    feed = ChangeFeed(engine)
    with capture_logs() as logs:
        following = asyncio.create_task(feed.follow())
        async with asyncio.timeout(30):
            while not logs:  # noqa: ASYNC110  (log lines cannot be awaited)
                await asyncio.sleep(0.05)
    assert not following.done()
    following.cancel()
    await engine.dispose()
    assert [entry["event"] for entry in logs] == ["revocations_unreachable"]
    assert feed.age_s > 0


async def test_a_paused_feed_is_read_before_it_is_used(engine: AsyncEngine) -> None:
    """After a pause, what was revoked meanwhile is read once, before anyone can rely on the feed."""
    feed = ChangeFeed(engine)
    await feed.catch_up()
    feed.pause()
    await announce_change(engine, "jti:1")
    await asyncio.gather(feed.ensure_current(), feed.ensure_current())
    assert feed.is_revoked("jti:1")
    await announce_change(engine, "jti:2")
    await feed.ensure_current()  # not paused: `follow` reads it
    assert not feed.is_revoked("jti:2")


async def test_a_paused_feed_is_not_used_without_a_database() -> None:
    """A feed that cannot read what a pause has missed does not count as current."""
    feed = ChangeFeed(open_engine("postgresql://ana@127.0.0.1:1/none"))
    feed.pause()
    assert feed.age_s == 0
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await feed.ensure_current()

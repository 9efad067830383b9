"""The change feed, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from structlog.testing import capture_logs

from auth.changes import ChangeFeed, announce
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import reading, writing
from tests.support.polling import PATIENCE_S, wait_until_async

LATER = timedelta(hours=1)


class HeldRead:
    """Replaces `reading`: the first query sets `has_read`, and its rows arrive only after `release`."""

    def __init__(self) -> None:
        self.has_read = asyncio.Event()
        self.release = asyncio.Event()

    @asynccontextmanager
    async def __call__(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with reading(engine) as connection:
            yield connection
        if not self.has_read.is_set():
            self.has_read.set()
            await self.release.wait()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldRead:
    read = HeldRead()
    monkeypatch.setattr("auth.changes.reading", read)
    return read


@asynccontextmanager
async def following(feed: ChangeFeed, *arguments: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Within the block, a task runs `follow`; afterwards it has ended."""
    task = asyncio.create_task(feed.follow(*arguments))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def announce_change(engine: AsyncEngine, target: str, *, revoked: bool = True, lasts: timedelta = LATER) -> None:
    async with writing(engine) as connection:
        await announce(connection, target, revoked=revoked, expires_at=datetime.now(UTC) + lasts)


async def test_a_revocation_reaches_every_process(engine: AsyncEngine) -> None:
    """A revocation that one process announces takes effect in every process that has caught up."""
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

    async def announce_all(some: list[str]) -> None:
        for target in some:
            await announce_change(engine, target)

    writers = asyncio.gather(*(announce_all(targets[index::8]) for index in range(8)))
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
    """While the database is unavailable, the feed logs an error and keeps trying."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    feed = ChangeFeed(engine)
    with capture_logs() as logs:
        async with following(feed) as task:
            await wait_until_async(lambda: logs)
            assert not task.done()
    await engine.dispose()
    assert [entry["event"] for entry in logs] == ["revocations_unreachable"]
    assert feed.age_s > 0


async def test_a_committed_change_stands_without_the_database() -> None:
    """If the database becomes unavailable after a commit, the feed logs that and raises nothing."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    with capture_logs() as logs:
        await ChangeFeed(engine).catch_up_after_commit()
    await engine.dispose()
    assert [entry["event"] for entry in logs] == ["revocations_unreachable"]


async def test_a_paused_feed_is_read_before_it_is_used(engine: AsyncEngine) -> None:
    """`ensure_current` reads the revocations that a paused feed has missed, and does not read an active feed."""
    feed = ChangeFeed(engine)
    await feed.catch_up()
    feed.pause()
    await announce_change(engine, "jti:1")
    await asyncio.gather(feed.ensure_current(), feed.ensure_current())
    assert feed.is_revoked("jti:1")
    await announce_change(engine, "jti:2")
    await feed.ensure_current()  # not paused: left to `follow`
    assert not feed.is_revoked("jti:2")


async def test_a_paused_feed_is_not_used_without_a_database() -> None:
    """A paused feed that cannot read the changes it has missed fails each time it should become current."""
    engine = open_engine("postgresql://ana@127.0.0.1:1/none")
    feed = ChangeFeed(engine)
    feed.pause()
    assert feed.age_s == 0
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await feed.ensure_current()
    await engine.dispose()


async def test_a_read_that_began_before_a_pause_does_not_end_it(engine: AsyncEngine, held: HeldRead) -> None:
    """Revocations during a pause are read before the feed is used, even if the pause began during a read."""
    feed = ChangeFeed(engine)
    read = asyncio.create_task(feed.catch_up())
    await held.has_read.wait()
    feed.pause()
    held.release.set()
    await read
    await announce_change(engine, "jti:1")
    await feed.ensure_current()
    assert feed.is_revoked("jti:1")


async def test_the_slower_of_two_reads_does_not_undo_newer_changes(engine: AsyncEngine, held: HeldRead) -> None:
    """A read whose rows arrive after the rows of a later read does not apply them again."""
    feed, received = ChangeFeed(engine), list[str]()
    feed.subscribe(received.append)
    await announce_change(engine, "subject:1", revoked=False)
    slower = asyncio.create_task(feed.catch_up())
    await held.has_read.wait()
    await announce_change(engine, "subject:1")
    await feed.catch_up()
    held.release.set()
    await slower
    assert feed.is_revoked("subject:1")
    assert received == ["subject:1", "subject:1"]


async def test_work_before_resuming(engine: AsyncEngine) -> None:
    """A `before_resuming` callback runs once for each pause, before the feed is read."""
    feed, targets = ChangeFeed(engine), iter(["jti:1", "jti:2"])

    async def act() -> None:
        await announce_change(engine, next(targets))

    feed.before_resuming(act)
    for target in ("jti:1", "jti:2"):
        feed.pause()
        await asyncio.gather(feed.ensure_current(), feed.ensure_current())
        assert feed.is_revoked(target)


async def test_changes_that_may_have_been_missed_are_reported(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows expire, so the first read after a pause, or after an hour without a read, reports a gap; others do not."""
    clock, gaps = SimpleNamespace(seconds=0.0), list[float]()
    monkeypatch.setattr("auth.changes.time", SimpleNamespace(monotonic=lambda: clock.seconds))
    feed = ChangeFeed(engine)
    feed.subscribe_to_gaps(lambda: gaps.append(clock.seconds))
    for clock.seconds in (1.0, 3601.0, 3602.0):
        await feed.catch_up()
    assert gaps == [3601.0]
    feed.pause()
    await feed.ensure_current()
    await feed.ensure_current()
    assert gaps == [3601.0, 3602.0]


async def test_a_pause_that_begins_while_another_ends(engine: AsyncEngine) -> None:
    """If a pause begins while another one ends, the next request still reads the changes that were missed."""
    feed, idle, pauses = ChangeFeed(engine), asyncio.Event(), iter([1])

    async def pause_again() -> None:
        for _ in pauses:
            feed.pause()

    async def sleep(_: float) -> None:
        if feed.is_revoked("jti:1"):
            idle.set()
            await asyncio.Event().wait()

    feed.before_resuming(pause_again)
    feed.pause()
    await announce_change(engine, "jti:1")
    async with following(feed, sleep):
        async with asyncio.timeout(PATIENCE_S):
            await idle.wait()
        await announce_change(engine, "jti:2")
        await feed.ensure_current()
    assert feed.is_revoked("jti:2")


async def test_the_feed_continues_after_an_unexpected_error(engine: AsyncEngine) -> None:
    """An unexpected error is logged, and later revocations are still read."""
    feed, failures = ChangeFeed(engine), iter([ValueError()])

    def fail_once(_: str) -> None:
        for error in failures:
            raise error

    feed.subscribe(fail_once)
    await announce_change(engine, "jti:1")
    with capture_logs() as logs:
        async with following(feed):
            await wait_until_async(lambda: logs)
            await announce_change(engine, "jti:2")
            await wait_until_async(lambda: feed.is_revoked("jti:2"))
    assert [entry["event"] for entry in logs] == ["revocations_not_read"]

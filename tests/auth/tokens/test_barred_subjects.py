"""Barring users of external issuers, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.changes import ChangeFeed
from auth.errors import SubjectNotBarred
from auth.tokens.barred_subjects import BarredSubjects, subject_target

ISSUER, ADA = "https://id.example/", "auth0|ada"
TARGET = subject_target(ISSUER, ADA)


@pytest.fixture
def subjects(engine: AsyncEngine) -> BarredSubjects:
    return BarredSubjects(engine)


async def open_feed(engine: AsyncEngine) -> ChangeFeed:
    """Return the feed of a process that starts now."""
    feed = ChangeFeed(engine)
    await feed.catch_up()
    return feed


async def test_every_process_knows_a_barred_subject(engine: AsyncEngine, subjects: BarredSubjects) -> None:
    """A process that runs and one that starts later both reject a barred user, and only that one."""
    running = await open_feed(engine)
    barred = await subjects.bar(ISSUER, ADA)
    await running.catch_up()
    for feed in (running, await open_feed(engine)):
        assert feed.is_revoked(TARGET)
        assert not feed.is_revoked(subject_target(ISSUER, "auth0|grace"))
        assert not feed.is_revoked(subject_target("https://id.example", ADA))
    assert await subjects.list() == [barred]


async def test_an_unbarred_subject_is_accepted_again(engine: AsyncEngine, subjects: BarredSubjects) -> None:
    """Running and new processes accept a user who is no longer barred, and reject one who is barred again."""
    running = await open_feed(engine)
    await subjects.bar(ISSUER, ADA)
    await running.catch_up()
    await subjects.unbar(ISSUER, ADA)
    await running.catch_up()
    assert [feed.is_revoked(TARGET) for feed in (running, await open_feed(engine))] == [False, False]
    assert await subjects.list() == []
    await subjects.bar(ISSUER, ADA)
    await running.catch_up()
    assert [feed.is_revoked(TARGET) for feed in (running, await open_feed(engine))] == [True, True]


async def test_barring_twice_keeps_the_first_time(subjects: BarredSubjects) -> None:
    """Barring a barred user changes nothing."""
    first = await subjects.bar(ISSUER, ADA)
    assert await subjects.bar(ISSUER, ADA) == first
    assert len(await subjects.list()) == 1


async def test_who_is_not_barred_cannot_be_unbarred(subjects: BarredSubjects) -> None:
    """Lifting a bar that does not exist fails, so that a mistyped name is noticed."""
    await subjects.bar(ISSUER, ADA)
    with pytest.raises(SubjectNotBarred):
        await subjects.unbar("https://id.example", ADA)


async def test_the_longest_subject_can_be_barred(engine: AsyncEngine, subjects: BarredSubjects) -> None:
    """A subject of the maximum accepted length fits into the tables."""
    name = "ä" * (299 - len(ISSUER))
    await subjects.bar(ISSUER, name)
    assert (await open_feed(engine)).is_revoked(subject_target(ISSUER, name))


async def test_concurrent_bars_are_one(subjects: BarredSubjects) -> None:
    """Commands that bar the same user at the same time leave one entry."""
    await asyncio.gather(*(subjects.bar(ISSUER, ADA) for _ in range(8)))
    assert len(await subjects.list()) == 1

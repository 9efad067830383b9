"""Refusals go into the record in the background, bounded; what must be durable fails closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.audit.events import Entry, Event, new_event
from monitoring.audit.store import AuditStore, Filter
from monitoring.audit.trail import BURST, AuditTrail
from monitoring.errors import AuditUnavailable


def login(actor: str = "ana", **more: Any) -> Event:
    return new_event("token", "issued", actor=actor, address="127.0.0.1", detail={"grant": "password"}, **more)


async def everything(store: AuditStore) -> list[Entry]:
    return [entry async for entry in store.every(Filter())]


class Failures:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


async def test_equal_refusals_are_added_up(store: AuditStore) -> None:
    """A thousand equal refusals are one entry with a count; another caller's is another."""
    trail = AuditTrail(store, Failures())
    for _ in range(1000):
        trail.refuse(new_event("access", "invalid", address="10.0.0.1"))
    trail.refuse(new_event("access", "invalid", address="10.0.0.2"))
    await trail.flush()
    assert [(entry.address, entry.count) for entry in await everything(store)] == [("10.0.0.1", 1000), ("10.0.0.2", 1)]


async def test_a_flood_of_distinct_refusals_is_bounded(store: AuditStore) -> None:
    """Past the burst, refusals from ever new addresses are added up; ten more a second are told apart again."""
    now = 0.0
    trail = AuditTrail(store, Failures(), clock=lambda: now)

    async def flood() -> list[Entry]:
        for index in range(5000):
            trail.refuse(new_event("access", "invalid", address=f"10.0.{index // 250}.{index % 250}"))
        await trail.flush()
        return await everything(store)

    assert len(await flood()) == BURST + 1
    assert len(await flood()) == BURST + 2
    now += 2.1
    await trail.flush()
    entries = await flood()
    assert len(entries) == BURST + 2 + 20
    assert sum(entry.count for entry in entries) == 15_000


async def test_refusals_are_written_in_the_background(store: AuditStore) -> None:
    """A refusal is in the record within a second, and those that wait at the end are written on the way out."""
    trail = AuditTrail(store, Failures())
    async with trail.running():
        trail.refuse(new_event("access", "missing"))
        async with asyncio.timeout(1):
            while not await everything(store):
                pass
        trail.refuse(new_event("access", "forbidden"))
    assert [entry.outcome for entry in await everything(store)] == ["missing", "forbidden"]


async def test_what_cannot_be_written_is_refused_or_kept(engine: AsyncEngine, store: AuditStore) -> None:
    """While the tables are away a durable act fails and refusals wait; once they are back, no refusal is lost."""
    failures = Failures()
    trail = AuditTrail(store, failures)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_events RENAME TO elsewhere"))
    with pytest.raises(AuditUnavailable):
        await trail.write(login())
    for _ in range(3):
        trail.refuse(new_event("access", "missing"))
        await trail.flush()
    assert failures.count == 4
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO audit_events"))
    await trail.flush()
    await trail.write(login())
    assert [(entry.outcome, entry.count) for entry in await everything(store)] == [("missing", 3), ("issued", 1)]
    assert (await store.verify()).problem is None

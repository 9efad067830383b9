"""The audit trail: rejections, merged and written in the background, and durable events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.audit.events import AuditEntry, AuditEvent, new_event
from monitoring.audit.store import AuditStore
from monitoring.audit.tables import audit_head
from monitoring.audit.trail import AuditTrail
from monitoring.chains.refusals import BURST
from monitoring.errors import AuditUnavailable
from storage.transactions import writing
from tests.monitoring.audit.events import build_login, read_all
from tests.support.polling import PATIENCE_S


class Failures:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


async def test_equal_rejections_are_merged(store: AuditStore) -> None:
    """Equal rejections are merged into one entry with a count; those of another address get an entry of their own."""
    trail = AuditTrail(store, Failures())
    for _ in range(1000):
        trail.record_refusal(new_event("access", "invalid", address="10.0.0.1"))
    trail.record_refusal(new_event("access", "invalid", address="10.0.0.2"))
    await trail.flush()
    assert [(entry.address, entry.count) for entry in await read_all(store)] == [("10.0.0.1", 1000), ("10.0.0.2", 1)]


async def test_distinct_rejections_are_limited(store: AuditStore) -> None:
    """After a burst, rejections of new addresses are counted together; ten more a second are recorded individually."""
    now = 0.0
    trail = AuditTrail(store, Failures(), clock=lambda: now)

    async def refuse_many() -> list[AuditEntry]:
        for index in range(5000):
            trail.record_refusal(new_event("access", "invalid", address=f"10.0.{index // 250}.{index % 250}"))
        await trail.flush()
        return await read_all(store)

    assert len(await refuse_many()) == BURST + 1
    assert len(await refuse_many()) == BURST + 2
    now += 2.1
    await trail.flush()
    entries = await refuse_many()
    assert len(entries) == BURST + 2 + 20
    assert sum(entry.count for entry in entries) == 15_000


class BlockedStore(AuditStore):
    """A store that does not write until the test releases it."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.writing = asyncio.Event()
        self.released = asyncio.Event()

    async def append(self, events: Sequence[AuditEvent]) -> None:
        self.writing.set()
        await self.released.wait()
        await super().append(events)


async def test_a_rejection_during_the_last_write_is_written(engine: AsyncEngine, store: AuditStore) -> None:
    """A rejection that is recorded during the last write before shutdown is written too."""
    blocked = BlockedStore(engine)
    trail = AuditTrail(blocked, Failures())
    async with trail.running():
        trail.record_refusal(new_event("access", "missing"))
        await blocked.writing.wait()
        trail.record_refusal(new_event("access", "forbidden"))
        asyncio.get_running_loop().call_soon(blocked.released.set)
    assert [entry.outcome for entry in await read_all(store)] == ["missing", "forbidden"]


async def test_rejections_are_written_in_the_background(store: AuditStore) -> None:
    """Refusals are written in the background, and those still waiting at shutdown are written then."""
    trail = AuditTrail(store, Failures())
    async with trail.running():
        trail.record_refusal(new_event("access", "missing"))
        async with asyncio.timeout(PATIENCE_S):
            while not await read_all(store):
                pass
        trail.record_refusal(new_event("access", "forbidden"))
    assert [entry.outcome for entry in await read_all(store)] == ["missing", "forbidden"]


async def test_an_unwritable_log_rejects_events_and_keeps_rejections(engine: AsyncEngine, store: AuditStore) -> None:
    """While the log cannot be written, durable events fail, and rejections are kept and written later."""
    failures = Failures()
    trail = AuditTrail(store, failures)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_events RENAME TO elsewhere"))
    with pytest.raises(AuditUnavailable):
        await trail.write(build_login())
    for _ in range(3):
        trail.record_refusal(new_event("access", "missing"))
        await trail.flush()
    assert failures.count == 4
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO audit_events"))
    await trail.flush()
    await trail.write(build_login())
    assert [(entry.outcome, entry.count) for entry in await read_all(store)] == [("missing", 3), ("issued", 1)]
    assert (await store.verify()).problem is None


class CountingStore(AuditStore):
    """A store that counts the attempts to append."""

    attempts = 0

    async def append(self, events: Sequence[AuditEvent]) -> None:
        self.attempts += 1
        await super().append(events)


async def test_events_do_not_wait_for_each_other_without_a_limit(engine: AsyncEngine) -> None:
    """While another transaction locks the log, waiting events time out together, not one after the other."""
    failures, store = Failures(), CountingStore(engine)
    trail = AuditTrail(store, failures)
    async with writing(engine) as connection:
        await connection.execute(update(audit_head).values(seq=audit_head.c.seq))
        results = await asyncio.gather(*(trail.write(build_login()) for _ in range(8)), return_exceptions=True)
    assert store.attempts <= 2  # the limit of the others ends while the second waits for the lock of the chain
    assert [type(result) for result in results] == [AuditUnavailable] * 8
    assert failures.count == 8
    await trail.write(build_login())
    assert (await store.verify()).problem is None

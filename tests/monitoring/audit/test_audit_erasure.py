"""Erasing what the audit log reveals about a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.audit.store import AuditStore
from monitoring.audit.tables import audit_events
from tests.monitoring.audit.events import build_login, read_all

ANA, BOB = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"
LOOKS_ERASED = {"address": "", "request_id": "", "detail": '{"erased":"true"}'}


async def fill(store: AuditStore, turns: int = 3) -> None:
    for _ in range(turns):
        await store.append([build_login(who, request_id="r", target="sid:1") for who in (ANA, BOB)])


async def find_problem(store: AuditStore) -> str:
    return str((await store.verify()).problem)


async def test_erased_entries_verify_and_reveal_nothing(store: AuditStore) -> None:
    """An erased entry keeps no address, request id or details; other entries stay, and earlier anchors verify."""
    await fill(store, 130)
    before = await read_all(store)
    anchor = (await store.verify()).anchor
    assert await store.erase(ANA, "cli:root") == 130
    assert await store.erase(ANA, "cli:root") == 0
    assert (await store.verify(anchor)).problem is None
    after = await read_all(store)
    assert [entry for entry in after if entry.actor == BOB] == [entry for entry in before if entry.actor == BOB]
    erased = [entry for entry in after if entry.actor == ANA]
    assert {(entry.address, entry.request_id, entry.detail) for entry in erased} == {("", "", '{"erased":"true"}')}
    assert {(entry.event, entry.outcome, entry.target) for entry in erased} == {("token", "issued", "sid:1")}
    records = [entry for entry in after if entry.event == "audit"]
    assert [(entry.outcome, entry.actor, entry.target) for entry in records] == [
        ("erased", "cli:root", f"user:{ANA}")
    ] * 2


async def test_pruning_erased_entries_and_their_record(store: AuditStore) -> None:
    """The log verifies after erased entries were pruned, with or without the entry that records the erasure."""
    await fill(store)
    await store.erase(ANA, "cli:root")
    await store.append([build_login(BOB)])
    after_record = datetime.now(UTC)
    entries = await read_all(store)
    for limit in (datetime.fromisoformat(entries[2].at), after_record, after_record + timedelta(seconds=1)):
        await store.prune(limit, "cli:root")
        assert await find_problem(store) == "None"


async def test_an_unrecorded_erasure_is_found(engine: AsyncEngine, store: AuditStore) -> None:
    """Verification finds an entry that was made to look erased, and one that was changed after it was erased."""
    await fill(store)
    await store.erase(ANA, "cli:root")
    async with engine.begin() as connection:
        await connection.execute(update(audit_events).where(audit_events.c.seq == 3).values(actor="nobody"))
    assert await find_problem(store) == "Entry 3 was changed: it looks erased, but no later entry records that."
    async with engine.begin() as connection:
        await connection.execute(update(audit_events).where(audit_events.c.seq == 3).values(actor=ANA))
        await connection.execute(update(audit_events).where(audit_events.c.seq == 2).values(**LOOKS_ERASED))
    assert await find_problem(store) == "Entry 2 was changed: it looks erased, but no later entry records that."


async def test_records_cannot_look_erased(engine: AsyncEngine, store: AuditStore) -> None:
    """An entry that records an erasure cannot itself be erased."""
    await fill(store)
    await store.erase(ANA, "cli:root")
    assert await store.erase("cli:root", "cli:root") == 0
    async with engine.begin() as connection:
        await connection.execute(update(audit_events).where(audit_events.c.seq == 7).values(**LOOKS_ERASED))
    assert "was changed" in await find_problem(store)


async def test_changed_entries_are_not_erased(engine: AsyncEngine, store: AuditStore) -> None:
    """An entry that was changed is kept, so that erasing does not hide the change."""
    await fill(store)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE audit_events SET address = '10.0.0.1' WHERE seq = 1"))
    assert await store.erase(ANA, "cli:root") == 2
    assert "its hash does not match its content" in await find_problem(store)

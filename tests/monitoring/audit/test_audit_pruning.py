"""Pruning an audit log that somebody has changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.audit import store as audit_store
from monitoring.audit.events import AuditEntry
from monitoring.audit.store import AuditStore
from monitoring.audit.tables import audit_events, audit_head
from monitoring.chains.anchors import Anchor
from monitoring.errors import AuditDamaged
from tests.monitoring.audit.events import build_login, fill_log, read_all

OLD = 4  # entries that are to be removed
LIMIT = datetime.now(UTC) - timedelta(days=365)
CHANGED = update(audit_events).values(actor="mallory")


async def fill(store: AuditStore) -> list[AuditEntry]:
    """Append four old entries and two new ones, and return all."""
    await store.append([replace(build_login(), at=LIMIT - timedelta(days=30)) for _ in range(OLD)])
    return await fill_log(store, 2)


async def check_refusal(store: AuditStore, expected: str) -> None:
    """Check that verification reports this problem, and that pruning refuses with the same one and removes nothing."""
    before, report = await read_all(store), await store.verify()
    assert expected in str(report.problem)
    with pytest.raises(AuditDamaged) as refusal:
        await store.prune(LIMIT, "cli:root")
    assert str(refusal.value).startswith(f"{report.problem} The remaining entries were kept.")
    assert await read_all(store) == before


async def test_a_changed_entry_is_not_pruned(engine: AsyncEngine, store: AuditStore) -> None:
    """Removing a changed entry would hide the change from later verifications."""
    await fill(store)
    async with engine.begin() as connection:
        await connection.execute(CHANGED.where(audit_events.c.seq == 2))
    await check_refusal(store, "its hash does not match its content")


@pytest.mark.parametrize("seq", [1, 2, OLD])
async def test_a_log_with_a_missing_entry_is_not_pruned(engine: AsyncEngine, store: AuditStore, seq: int) -> None:
    """A missing entry is reported, also if it is the first or the last one to be removed."""
    await fill(store)
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events).where(audit_events.c.seq == seq))
    await check_refusal(store, f"Entry {seq} is missing")


async def test_a_log_whose_end_is_missing_is_not_pruned(engine: AsyncEngine, store: AuditStore) -> None:
    """If all entries are old and the last ones were removed, the head names an entry that does not exist."""
    await store.append([replace(build_login(), at=LIMIT - timedelta(days=30)) for _ in range(OLD)])
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events).where(audit_events.c.seq >= OLD - 1))
    await check_refusal(store, f"Entry {OLD - 1} and all later ones are missing")


async def test_a_log_with_a_removed_beginning_is_not_pruned(engine: AsyncEngine, store: AuditStore) -> None:
    """The record of a pruning does not justify that somebody had removed earlier entries without one."""
    entries = await fill(store)
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events).where(audit_events.c.seq <= 2))
        await connection.execute(update(audit_head).values(pruned_seq=2, pruned_hash=entries[1].hash))
    await check_refusal(store, "but not by pruning")


async def test_an_entry_that_only_looks_erased_is_not_pruned(engine: AsyncEngine, store: AuditStore) -> None:
    """An entry in the form of an erased one is removed only if a later entry records the erasure."""
    await fill(store)
    await store.erase("ana", "cli:root")
    forgotten = select(audit_events.c.seq).where(audit_events.c.outcome == "erased")
    async with engine.begin() as connection:
        seq = (await connection.execute(forgotten)).scalar_one()
        await connection.execute(update(audit_events).where(audit_events.c.seq == seq).values(outcome="exported"))
    with pytest.raises(AuditDamaged, match="Entry 1 was changed: it looks erased, but no later entry records that"):
        await store.prune(LIMIT, "cli:root")


async def test_erased_entries_are_pruned(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Erased entries are removed in several transactions although the entry that records their erasure is kept."""
    monkeypatch.setattr(audit_store, "_PRUNED_AT_ONCE", 2)
    await fill(store)
    await store.erase("ana", "cli:root")
    assert await store.prune(LIMIT, "cli:root") == OLD
    assert (await store.verify()).problem is None
    assert [entry.seq for entry in await read_all(store)] == [5, 6, 7, 8, 9]


async def test_intact_chunks_before_a_changed_entry_are_pruned(
    engine: AsyncEngine, store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction verifies what it removes, so a changed entry and all later ones stay, and it is reported."""
    monkeypatch.setattr(audit_store, "_PRUNED_AT_ONCE", 2)
    await fill(store)
    async with engine.begin() as connection:
        await connection.execute(CHANGED.where(audit_events.c.seq == OLD))
    with pytest.raises(AuditDamaged):
        await store.prune(LIMIT, "cli:root")
    assert (await read_all(store))[0].seq == OLD - 1
    assert "its hash does not match its content" in str((await store.verify()).problem)


async def test_an_anchor_from_before_a_pruning_is_too_old(store: AuditStore) -> None:
    """An anchor whose entry was pruned is no sign of tampering: the report asks for a newer one."""
    await fill(store)
    old = Anchor(2, (await read_all(store))[1].hash)
    await store.prune(LIMIT, "cli:root")
    assert (await store.verify(old)).problem == "The anchor, entry 2, was pruned: give a newer one."
    assert (await store.verify()).problem is None

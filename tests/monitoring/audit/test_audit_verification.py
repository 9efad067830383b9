"""Verifying the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.audit.events import AuditEntry
from monitoring.audit.store import AuditFilter, AuditStore
from monitoring.audit.tables import audit_events, audit_head
from monitoring.audit.verification import verify_chain
from monitoring.chains.anchors import Anchor
from tests.monitoring.audit.events import build_login, fill_log

ENTRIES = 6
FIELDS = [column for column in AuditEntry.__struct_fields__ if column != "seq"]


Tampering = Callable[[AsyncConnection], Awaitable[object]]


def tampering() -> st.SearchStrategy[Tampering]:
    """Generate a manipulation of the database: of entries, of their order or of the head."""
    entry = st.integers(1, ENTRIES)
    return st.one_of(
        st.builds(change_field, entry, st.sampled_from(FIELDS)),
        st.builds(remove, entry),
        st.builds(remove_from, entry),
        st.builds(swap, entry, st.integers(1, ENTRIES - 1)),
        st.builds(add, st.integers(ENTRIES + 1, ENTRIES + 3)),
        st.builds(forge, entry),
        st.builds(change_head, st.sampled_from(["seq", "hash", "pruned_seq", "pruned_hash"])),
    )


def change_field(seq: int, field: str) -> Tampering:
    async def change(connection: AsyncConnection) -> None:
        value = (await connection.execute(select(audit_events.c[field]).where(audit_events.c.seq == seq))).scalar_one()
        changed = value + 1 if isinstance(value, int) else f"{value[:-1]}{'0' if value[-1:] != '0' else '1'}"
        await connection.execute(update(audit_events).where(audit_events.c.seq == seq).values({field: changed}))

    return change


def remove(seq: int) -> Tampering:
    return lambda connection: connection.execute(delete(audit_events).where(audit_events.c.seq == seq))


def remove_from(seq: int) -> Tampering:
    return lambda connection: connection.execute(delete(audit_events).where(audit_events.c.seq >= seq))


def swap(first: int, distance: int) -> Tampering:
    second = (first + distance - 1) % ENTRIES + 1

    async def exchange(connection: AsyncConnection) -> None:
        for old, new in ((first, 100), (second, first), (100, second)):
            await connection.execute(update(audit_events).where(audit_events.c.seq == old).values(seq=new))

    return exchange


async def read(connection: AsyncConnection, seq: int) -> dict[str, Any]:
    rows = await connection.execute(select(audit_events).where(audit_events.c.seq == seq))
    return dict(rows.mappings().one())


def add(seq: int) -> Tampering:
    """Append an entry after the last one, with a correct hash."""

    async def append(connection: AsyncConnection) -> None:
        last = await read(connection, ENTRIES)
        more = AuditEntry(**{**last, "seq": seq, "id": "forged", "previous": last["hash"]})
        row = {**last, "seq": seq, "id": "forged", "previous": last["hash"], "hash": more.compute_hash()}
        await connection.execute(insert(audit_events).values(**row))

    return append


def forge(seq: int) -> Tampering:
    """Change an entry together with its own hash."""

    async def change(connection: AsyncConnection) -> None:
        changed = {**await read(connection, seq), "actor": "nobody"}
        changed["hash"] = AuditEntry(**changed).compute_hash()
        await connection.execute(update(audit_events).where(audit_events.c.seq == seq).values(**changed))

    return change


def change_head(field: str) -> Tampering:
    value: object = ENTRIES - 1 if field.endswith("seq") else "1" * 64
    return lambda connection: connection.execute(update(audit_head).values({field: value}))


@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tamper=tampering())
async def test_any_later_change_is_found(engine: AsyncEngine, store: AuditStore, tamper: Tampering) -> None:
    """A changed field, a removed, added, swapped or forged entry, a truncated end and a moved head are all found."""
    if not await store.list_newest(AuditFilter(), 1):
        await fill_log(store)
    async with engine.connect() as connection:
        assert (await verify_chain(connection)).problem is None
        await tamper(connection)
        assert (await verify_chain(connection)).problem is not None
        await connection.rollback()


async def test_the_entry_that_is_wrong_is_named(engine: AsyncEngine, store: AuditStore) -> None:
    """The report says up to which entry the log verifies, and names the wrong one."""
    entries = await fill_log(store)
    async with engine.begin() as connection:
        await change_field(4, "actor")(connection)
    report = await store.verify()
    assert (report.entries, report.anchor.number, report.anchor.hash) == (3, 3, entries[2].hash)
    assert report.problem == f"Entry 4 ({entries[3].id}) was changed: its hash does not match its content."


async def test_an_anchor_exposes_a_recomputed_chain(engine: AsyncEngine, store: AuditStore) -> None:
    """Only an anchor reveals that all hashes of a chain were recomputed."""
    entries = await fill_log(store)
    anchor = Anchor(entries[2].seq, entries[2].hash)
    assert (await store.verify(anchor)).problem is None
    genesis = {"seq": 0, "hash": "0" * 64}
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events))
        await connection.execute(update(audit_head).values(**genesis))
    await store.append([build_login("nobody") for _ in entries])
    assert (await store.verify()).problem is None
    assert "was recomputed" in str((await store.verify(anchor)).problem)
    assert "is missing" in str((await store.verify(Anchor(99, "0" * 64))).problem)


@pytest.mark.parametrize("statement", ["DELETE FROM audit_head", "INSERT INTO audit_head VALUES (2, 0, '', 0, '')"])
async def test_a_missing_or_second_head_is_found(engine: AsyncEngine, store: AuditStore, statement: str) -> None:
    """A log without its head, or with two, does not verify."""
    await fill_log(store)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    assert "head" in str((await store.verify()).problem)


async def test_a_removed_beginning_is_found(engine: AsyncEngine, store: AuditStore) -> None:
    """Verification finds that the first entries were removed without an entry that records a pruning."""
    entries = await fill_log(store)
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events).where(audit_events.c.seq <= 2))
        await connection.execute(update(audit_head).values(pruned_seq=2, pruned_hash=entries[1].hash))
    assert "but not by pruning" in str((await store.verify()).problem)

"""Any later change to the record of access shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.audit.chain import Anchor, check_chain
from monitoring.audit.events import Entry, Event, new_event
from monitoring.audit.store import AuditStore, Filter
from monitoring.audit.tables import audit_events, audit_head

ENTRIES = 6
FIELDS = [column for column in Entry.__slots__ if column != "seq"]


def login(actor: str = "ana", **more: Any) -> Event:
    return new_event("token", "issued", actor=actor, address="127.0.0.1", detail={"grant": "password"}, **more)


async def fill(store: AuditStore, count: int = ENTRIES) -> list[Entry]:
    await store.append([login(f"user-{index}", request_id=f"request-{index}") for index in range(count)])
    return await everything(store)


async def everything(store: AuditStore) -> list[Entry]:
    return [entry async for entry in store.every(Filter())]


Tampering = Callable[[AsyncConnection], Awaitable[object]]


def tampering() -> st.SearchStrategy[Tampering]:
    """One change that somebody with the database's password makes to one entry or to the order of two."""
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
    row = (await connection.execute(select(audit_events).where(audit_events.c.seq == seq))).one()
    return dict(row._mapping)


def add(seq: int) -> Tampering:
    """An entry that follows the last one with a fitting hash."""

    async def append(connection: AsyncConnection) -> None:
        last = await read(connection, ENTRIES)
        more = Entry(**{**last, "seq": seq, "id": "forged", "previous": last["hash"]})
        row = {**last, "seq": seq, "id": "forged", "previous": last["hash"], "hash": more.computed_hash()}
        await connection.execute(insert(audit_events).values(**row))

    return append


def forge(seq: int) -> Tampering:
    """An entry changed together with its own hash."""

    async def change(connection: AsyncConnection) -> None:
        changed = {**await read(connection, seq), "actor": "nobody"}
        changed["hash"] = Entry(**changed).computed_hash()
        await connection.execute(update(audit_events).where(audit_events.c.seq == seq).values(**changed))

    return change


def change_head(field: str) -> Tampering:
    value: object = ENTRIES - 1 if field.endswith("seq") else "1" * 64
    return lambda connection: connection.execute(update(audit_head).values({field: value}))


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tamper=tampering())
async def test_any_later_change_shows(engine: AsyncEngine, store: AuditStore, tamper: Tampering) -> None:
    """A field changed, an entry removed, added, exchanged or forged, the end cut off, the head moved: all are found."""
    if not await store.newest(Filter(), 1):
        await fill(store)
    async with engine.connect() as connection:
        assert (await check_chain(connection)).problem is None
        await tamper(connection)
        assert (await check_chain(connection)).problem is not None
        await connection.rollback()


async def test_the_entry_that_is_wrong_is_named(engine: AsyncEngine, store: AuditStore) -> None:
    """A check says how far the record is good, and which entry is not."""
    entries = await fill(store)
    async with engine.begin() as connection:
        await change_field(4, "actor")(connection)
    finding = await store.verify()
    assert (finding.entries, finding.seq, finding.hash) == (3, 3, entries[2].hash)
    assert finding.problem == f"Entry 4 ({entries[3].id}) was changed: its hash does not fit it."


async def test_a_chain_written_anew_does_not_fit_an_anchor(engine: AsyncEngine, store: AuditStore) -> None:
    """Who can compute every hash anew is found by an entry's hash kept elsewhere, and by nothing else."""
    entries = await fill(store)
    anchor = Anchor(entries[2].seq, entries[2].hash)
    assert (await store.verify(anchor)).problem is None
    genesis = {"seq": 0, "hash": "0" * 64}
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events))
        await connection.execute(update(audit_head).values(**genesis))
    await store.append([login("nobody") for _ in entries])
    assert (await store.verify()).problem is None
    assert "written anew" in str((await store.verify(anchor)).problem)
    assert "not there any more" in str((await store.verify(Anchor(99, "0" * 64))).problem)


@pytest.mark.parametrize("statement", ["DELETE FROM audit_head", "INSERT INTO audit_head VALUES (2, 0, '', 0, '')"])
async def test_a_head_that_is_not_one_shows(engine: AsyncEngine, store: AuditStore, statement: str) -> None:
    """Without its head, or with two, the record is not whole."""
    await fill(store)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    assert "head" in str((await store.verify()).problem)


async def test_a_beginning_cut_off_by_hand_shows(engine: AsyncEngine, store: AuditStore) -> None:
    """Entries removed as pruning does it, but without its entry, are missed."""
    entries = await fill(store)
    async with engine.begin() as connection:
        await connection.execute(delete(audit_events).where(audit_events.c.seq <= 2))
        await connection.execute(update(audit_head).values(pruned_seq=2, pruned_hash=entries[1].hash))
    assert "otherwise than by pruning" in str((await store.verify()).problem)

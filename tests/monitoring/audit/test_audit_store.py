"""The record of access: one chain on either database, of words that are safe to keep."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring import MIGRATIONS
from monitoring.audit.events import Entry, Event, new_event, safe_text
from monitoring.audit.store import AuditStore, Filter
from monitoring.audit.tables import audit_head, metadata
from monitoring.errors import AuditUnavailable
from storage.engine import open_engine
from storage.migrations import alembic_config, migrate


def login(actor: str = "ana", **more: Any) -> Event:
    return new_event("token", "issued", actor=actor, address="127.0.0.1", detail={"grant": "password"}, **more)


async def fill(store: AuditStore, count: int = 6) -> list[Entry]:
    await store.append([login(f"user-{index}", request_id=f"request-{index}") for index in range(count)])
    return await everything(store)


async def everything(store: AuditStore) -> list[Entry]:
    return [entry async for entry in store.every(Filter())]


async def test_an_entry_says_who_did_what_when_and_where(store: AuditStore) -> None:
    """An entry holds what was noted, a UUIDv7, and a moment in UTC; the first names no hash before it."""
    await store.append([login("ana", target="sid:1", request_id="request-1")])
    (entry,) = await everything(store)
    kept = (entry.seq, entry.event, entry.outcome, entry.actor, entry.target, entry.address, entry.request_id)
    assert kept == (1, "token", "issued", "ana", "sid:1", "127.0.0.1", "request-1")
    assert (entry.detail, entry.count, entry.previous) == ('{"grant":"password"}', 1, "0" * 64)
    assert entry.id[14] == "7"
    assert abs(datetime.now(UTC) - datetime.fromisoformat(entry.at)) < timedelta(minutes=1)


async def test_processes_write_one_chain(database_url: str, store: AuditStore) -> None:
    """Entries that many connections append at the same moment follow each other without a gap."""
    engines = [open_engine(database_url) for _ in range(4)]
    try:
        await asyncio.gather(*(AuditStore(engines[index % 4]).append([login(), login()]) for index in range(20)))
    finally:
        for engine in engines:
            await engine.dispose()
    assert [entry.seq for entry in await everything(store)] == list(range(1, 41))
    finding = await store.verify()
    assert (finding.entries, finding.problem) == (40, None)


async def test_a_long_chain_is_read_in_parts(store: AuditStore) -> None:
    """More entries than are read at once are all listed, and all checked."""
    await fill(store, 1501)
    assert [entry.seq for entry in await everything(store)] == list(range(1, 1502))
    assert (await store.verify()).entries == 1501


async def test_an_empty_record_is_whole(store: AuditStore) -> None:
    """Nothing was recorded, and nothing is wrong."""
    finding = await store.verify()
    assert (finding.entries, finding.seq, finding.problem) == (0, 0, None)


async def test_entries_are_found(store: AuditStore) -> None:
    """Filters go together: the event, its outcome, the actor, from one moment and before another."""
    early = datetime(2026, 1, 1, tzinfo=UTC)
    await store.append([replace(login(), at=early + timedelta(days=day)) for day in range(4)])
    await store.append([new_event("key", "created", actor="olga")])

    async def found(**wanted: Any) -> list[int]:
        return [entry.seq for entry in await store.newest(Filter(**wanted), 10)]

    assert await found() == [5, 4, 3, 2, 1]
    assert await found(event="key") == await found(actor="olga") == await found(outcome="created") == [5]
    assert await found(event="key", actor="ana") == []
    assert await found(since=early + timedelta(days=1), until=early + timedelta(days=3)) == [3, 2]
    newest = await store.newest(Filter(), 2, before=4)
    assert [entry.seq for entry in newest] == [3, 2]


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "a\x00b", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "a\ud800b"])
async def test_no_text_breaks_a_line(store: AuditStore, hostile: str) -> None:
    """Control characters, line ends of any kind and lone surrogates are kept as their escapes."""
    await store.append([new_event("token", "refused", actor=hostile, detail={hostile: hostile})])
    (entry,) = await everything(store)
    assert entry.actor.isprintable()
    assert entry.actor.startswith("a\\")
    assert all(text.isprintable() for pair in json.loads(entry.detail).items() for text in pair)
    assert (await store.verify()).problem is None


@given(st.text(max_size=600))
def test_what_is_kept_fits_one_line(text: str) -> None:
    """Whatever a caller sends becomes printable text of the column's length at most."""
    kept = safe_text(text, 64)
    assert len(kept) <= 64
    assert kept.isprintable()


def test_secrets_are_masked() -> None:
    """A credential that strays into any field is masked, and so is a detail with a secret's name."""
    noted = new_event(
        "token",
        "refused",
        actor="atl_7fQ2_sesame",
        target="password=sesame",
        address="Bearer sesame",
        detail={"client_secret": "sesame", "why": "Authorization: Bearer sesame"},
    )
    assert "sesame" not in repr(noted)


def test_details_are_bounded() -> None:
    """Neither many details nor long ones make an entry grow."""
    noted = new_event("token", "refused", actor="a" * 10_000, detail={str(index): "b" * 10_000 for index in range(100)})
    assert len(noted.actor) == 320
    assert len(noted.detail) < 16 * 300


async def test_migrations_make_what_the_code_expects(engine: AsyncEngine) -> None:
    """After migrating, the room's tables do not differ from those in the code; its migration can be undone."""

    def differences(connection: Connection) -> object:
        def ours(_object: object, name: str, kind: str, _reflected: bool, _compared: object) -> bool:
            return kind != "table" or name in metadata.tables

        return compare_metadata(MigrationContext.configure(connection, opts={"include_object": ours}), metadata)

    async with engine.begin() as connection:
        assert await connection.run_sync(differences) == []
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync, MIGRATIONS), "base"))
        left = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
        assert not left & set(metadata.tables)
        assert "users" in left
    await migrate(engine, MIGRATIONS)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_old_entries_go_and_the_rest_still_verifies(store: AuditStore) -> None:
    """Pruning removes the oldest entries, says so in an entry of its own, and leaves a chain that is whole."""
    old = datetime.now(UTC) - timedelta(days=400)
    await store.append([replace(login(), at=old) for _ in range(3)])
    await fill(store, 2)
    limit = datetime.now(UTC) - timedelta(days=365)
    assert await store.prune(limit, "cli:root") == 3
    entries = await everything(store)
    assert [(entry.seq, entry.event, entry.outcome) for entry in entries] == [
        (4, "token", "issued"),
        (5, "token", "issued"),
        (6, "audit", "pruned"),
    ]
    finding = await store.verify()
    assert (finding.entries, finding.problem) == (3, None)
    assert await store.prune(limit, "cli:root") == 0
    assert len(await everything(store)) == 3


async def test_a_removal_can_be_repeated_until_nothing_old_is_left(store: AuditStore) -> None:
    """Each time the last entry of what is removed is where the rest begins, even when all of it goes."""
    for _ in range(3):
        await fill(store, 2)
        assert await store.prune(datetime.now(UTC) + timedelta(seconds=1), "cli:root") > 0
        assert len(await everything(store)) == 1
        assert (await store.verify()).problem is None


async def test_without_its_head_nothing_is_written(engine: AsyncEngine, store: AuditStore) -> None:
    """A chain whose end is not known is not continued."""
    async with engine.begin() as connection:
        await connection.execute(delete(audit_head))
    with pytest.raises(AuditUnavailable):
        await store.append([login()])


async def test_a_database_that_is_away_is_reported(unused_tcp_port: int) -> None:
    """A refused connection is AuditUnavailable, for writing and for reading."""
    engine = open_engine(f"postgresql://u:sesame@127.0.0.1:{unused_tcp_port}/db")
    store = AuditStore(engine)
    try:
        for attempt in (store.append([login()]), store.newest(Filter(), 1), store.verify()):
            with pytest.raises(AuditUnavailable):
                await attempt
    finally:
        await engine.dispose()

"""The audit log in the database."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection, delete, inspect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from monitoring import MIGRATIONS
from monitoring.audit import store as audit_store
from monitoring.audit.events import new_event, sanitize
from monitoring.audit.store import AuditFilter, AuditStore
from monitoring.audit.tables import audit_head, metadata
from monitoring.errors import AuditUnavailable
from storage.engine import open_engine
from storage.migrations import alembic_config, migrate
from tests.monitoring.audit.events import build_login, fill_log, read_all
from tests.support.ports import refusing_port


async def test_an_entry_contains_the_event(store: AuditStore) -> None:
    """An entry contains its event, a UUIDv7 and the time in UTC; the first one names no previous hash."""
    before = datetime.now(UTC)
    await store.append([build_login("ana", target="sid:1", request_id="request-1")])
    (entry,) = await read_all(store)
    stored = (entry.seq, entry.event, entry.outcome, entry.actor, entry.target, entry.address, entry.request_id)
    assert stored == (1, "token", "issued", "ana", "sid:1", "127.0.0.1", "request-1")
    assert (entry.detail, entry.count, entry.previous) == ('{"grant":"password"}', 1, "0" * 64)
    assert entry.id[14] == "7"
    assert before <= datetime.fromisoformat(entry.at) <= datetime.now(UTC)


@pytest.mark.usefixtures("patient_sqlite")
async def test_concurrent_writers_share_one_chain(database_url: str, store: AuditStore) -> None:
    """Entries that several connections append concurrently are numbered without a gap."""
    engines = [open_engine(database_url) for _ in range(4)]
    try:
        await asyncio.gather(
            *(AuditStore(engines[index % 4]).append([build_login(), build_login()]) for index in range(10))
        )
    finally:
        for engine in engines:
            await engine.dispose()
    assert [entry.seq for entry in await read_all(store)] == list(range(1, 21))
    report = await store.verify()
    assert (report.entries, report.problem) == (20, None)


async def test_a_long_chain_is_read_in_chunks(store: AuditStore) -> None:
    """More entries than a chunk contains are all listed, and all verified."""
    await fill_log(store, 1501)
    assert [entry.seq for entry in await read_all(store)] == list(range(1, 1502))
    assert (await store.verify()).entries == 1501


async def test_an_empty_log_verifies(store: AuditStore) -> None:
    """A log without entries verifies."""
    report = await store.verify()
    assert (report.entries, report.anchor.number, report.problem) == (0, 0, None)


async def test_filters_are_combined(store: AuditStore) -> None:
    """Entries are selected by event, outcome, actor, and a time span, alone or together."""
    early = datetime(2026, 1, 1, tzinfo=UTC)
    await store.append([replace(build_login(), at=early + timedelta(days=day)) for day in range(4)])
    await store.append([new_event("key", "created", actor="olga")])

    async def find(**selected: Any) -> list[int]:
        return [entry.seq for entry in await store.list_newest(AuditFilter(**selected), 10)]

    assert await find() == [5, 4, 3, 2, 1]
    assert await find(event="key") == await find(actor="olga") == await find(outcome="created") == [5]
    assert await find(event="key", actor="ana") == []
    assert await find(since=early + timedelta(days=1), until=early + timedelta(days=3)) == [3, 2]
    newest = await store.list_newest(AuditFilter(), 2, before=4)
    assert [entry.seq for entry in newest] == [3, 2]


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "a\x00b", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "a\ud800b"])
async def test_texts_are_single_lines(store: AuditStore, hostile: str) -> None:
    """Control characters, line endings of any kind and lone surrogates are stored as escapes."""
    await store.append([new_event("token", "refused", actor=hostile, detail={hostile: hostile})])
    (entry,) = await read_all(store)
    assert entry.actor.isprintable()
    assert entry.actor.startswith("a\\")
    assert all(text.isprintable() for pair in json.loads(entry.detail).items() for text in pair)
    assert (await store.verify()).problem is None


@given(st.text(max_size=600))
def test_texts_fit_their_columns(text: str) -> None:
    """Any text is made printable and cut to the length of its column."""
    kept = sanitize(text, 64)
    assert len(kept) <= 64
    assert kept.isprintable()


def test_secrets_are_masked() -> None:
    """Credentials in any field are masked, and so is a detail with the name of a secret."""
    event = new_event(
        "token",
        "refused",
        actor="atl_7fQ2_sesame",
        target="password=sesame",
        address="Bearer sesame",
        detail={"client_secret": "sesame", "why": "Authorization: Bearer sesame"},
    )
    assert "sesame" not in repr(event)


def test_details_are_bounded() -> None:
    """The number and the length of details are limited."""
    event = new_event("token", "refused", actor="a" * 10_000, detail={str(index): "b" * 10_000 for index in range(100)})
    assert len(event.actor) == 320
    assert len(event.detail) < 16 * 300


async def test_migrations_match_the_tables(engine: AsyncEngine) -> None:
    """The migrated tables do not differ from those in the code, and the migrations can be undone."""

    def differences(connection: Connection) -> object:
        def is_own(_object: object, name: str, kind: str, _reflected: bool, _compared: object) -> bool:
            return kind != "table" or name in metadata.tables

        return compare_metadata(MigrationContext.configure(connection, opts={"include_object": is_own}), metadata)

    async with engine.begin() as connection:
        assert await connection.run_sync(differences) == []
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync, MIGRATIONS), "base"))
        left = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
        assert not left & set(metadata.tables)
        assert "users" in left
    await migrate(engine, MIGRATIONS)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_rest_verifies_after_pruning(store: AuditStore) -> None:
    """Pruning removes the oldest entries, records that in an entry, and leaves a chain that verifies."""
    old = datetime.now(UTC) - timedelta(days=400)
    await store.append([replace(build_login(), at=old) for _ in range(3)])
    await fill_log(store, 2)
    limit = datetime.now(UTC) - timedelta(days=365)
    assert await store.prune(limit, "cli:root") == 3
    entries = await read_all(store)
    assert [(entry.seq, entry.event, entry.outcome) for entry in entries] == [
        (4, "token", "issued"),
        (5, "token", "issued"),
        (6, "audit", "pruned"),
    ]
    report = await store.verify()
    assert (report.entries, report.problem) == (3, None)
    assert await store.prune(limit, "cli:root") == 0
    assert len(await read_all(store)) == 3


async def test_pruning_takes_several_transactions(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction removes a limited number of entries and records that, and the rest verifies."""
    monkeypatch.setattr(audit_store, "_PRUNED_AT_ONCE", 2)
    old = datetime.now(UTC) - timedelta(days=400)
    await store.append([replace(build_login(), at=old) for _ in range(5)])
    assert await store.prune(datetime.now(UTC) - timedelta(days=365), "cli:root") == 5
    assert [(entry.seq, entry.outcome) for entry in await read_all(store)] == [
        (6, "pruned"),
        (7, "pruned"),
        (8, "pruned"),
    ]
    assert (await store.verify()).problem is None


async def test_pruning_can_be_repeated(store: AuditStore) -> None:
    """The chain verifies after each of several prunings, even when every entry was removed."""
    for _ in range(3):
        await fill_log(store, 2)
        assert await store.prune(datetime.now(UTC) + timedelta(seconds=1), "cli:root") > 0
        assert len(await read_all(store)) == 1
        assert (await store.verify()).problem is None


async def test_nothing_is_appended_without_a_head(engine: AsyncEngine, store: AuditStore) -> None:
    """Appending fails when the head, whose hash the next entry needs, is missing."""
    async with engine.begin() as connection:
        await connection.execute(delete(audit_head))
    with pytest.raises(AuditUnavailable):
        await store.append([build_login()])


async def test_an_unavailable_database_is_reported() -> None:
    """A refused connection raises AuditUnavailable, for writing and for reading."""
    with refusing_port() as port:
        engine = open_engine(f"postgresql://u:sesame@127.0.0.1:{port}/db")
        store = AuditStore(engine)
        try:
            for attempt in (store.append([build_login()]), store.list_newest(AuditFilter(), 1), store.verify()):
                with pytest.raises(AuditUnavailable):
                    await attempt
        finally:
            await engine.dispose()


async def test_a_log_in_a_schema_is_verified(postgres_url: str) -> None:
    """A log in a schema of its own is verified, although every transaction first selects the schema."""
    plain, engine = open_engine(postgres_url), open_engine(f"{postgres_url}?schema=land")
    async with plain.begin() as connection:
        await connection.execute(CreateSchema("land"))
    await migrate(engine, MIGRATIONS)
    store = AuditStore(engine)
    await store.append([build_login()])
    report = await store.verify()
    await engine.dispose()
    await plain.dispose()
    assert (report.problem, report.entries) == (None, 1)

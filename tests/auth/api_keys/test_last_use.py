"""Recording when API keys were last used, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserStore
from auth.api_keys.last_use import LastUseRecorder
from auth.api_keys.store import KeyStore, KeyTerms
from auth.principal import Role, Scope
from auth.tables import api_keys
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

TOMORROW = datetime.now(UTC) + timedelta(days=1)


async def make_keys(engine: AsyncEngine, count: int) -> list[str]:
    """Create a user with keys, and return the ids of the keys."""
    owner = (await UserStore(engine).add("ana", Role.CLIENT, "hash")).id
    terms = KeyTerms("maps", frozenset({Scope.PREDICT}), TOMORROW)
    return [(await KeyStore(engine).create(owner, terms))[0].id for _ in range(count)]


async def last_use(engine: AsyncEngine, key_id: str) -> datetime | None:
    return (await KeyStore(engine).get(key_id)).last_used_at


async def test_uses_are_written_together(engine: AsyncEngine) -> None:
    """One write stores the time of last use of every key that was used, and of no other key."""
    one, two, three = await make_keys(engine, 3)
    recorder, before = LastUseRecorder(engine), datetime.now(UTC)
    for key_id in (two, one, two):
        recorder.record(key_id)
    await recorder.write()
    for key_id in (one, two):
        used_at = await last_use(engine, key_id)
        assert used_at is not None
        assert before <= used_at <= datetime.now(UTC)
    assert await last_use(engine, three) is None


async def test_a_later_use_is_not_overwritten(engine: AsyncEngine) -> None:
    """A later use is kept when another process writes an earlier one afterwards."""
    (key_id,) = await make_keys(engine, 1)
    early, late = LastUseRecorder(engine), LastUseRecorder(engine)
    early.record(key_id)
    late.record(key_id)
    await late.write()
    written = await last_use(engine, key_id)
    await early.write()
    assert await last_use(engine, key_id) == written


async def test_concurrent_writes_do_not_deadlock(engine: AsyncEngine) -> None:
    """Two processes that used the same keys in opposite orders can write them concurrently."""
    key_ids = await make_keys(engine, 20)
    recorders = [LastUseRecorder(engine), LastUseRecorder(engine)]
    for _ in range(5):
        for recorder, order in zip(recorders, (key_ids, key_ids[::-1]), strict=True):
            for key_id in order:
                recorder.record(key_id)
        await asyncio.gather(*(recorder.write() for recorder in recorders))
    assert await last_use(engine, key_ids[0]) is not None


async def test_revocations_of_keys_in_use_do_not_deadlock(engine: AsyncEngine) -> None:
    """Revoking a key with its descendants locks them in the same order as the uses that are written meanwhile."""
    store, (root, *_) = KeyStore(engine), await make_keys(engine, 1)
    owner, terms = (await store.get(root)).user_id, KeyTerms("maps", frozenset({Scope.PREDICT}), TOMORROW)
    key_ids = [(await store.create(owner, terms, root))[0].id for _ in range(40)]
    recorder = LastUseRecorder(engine)
    for _ in range(5):
        for key_id in key_ids:
            recorder.record(key_id)
        await asyncio.gather(recorder.write(), store.revoke(root, cascade=True))
        async with writing(engine) as connection:
            await connection.execute(update(api_keys).values(revoked_at=None))


async def test_the_uses_of_many_keys_take_few_statements(engine: AsyncEngine) -> None:
    """A transaction takes one statement for up to 200 keys: on SQLite, predictions wait for it."""
    recorder, statements = LastUseRecorder(engine), list[bool]()
    for number in range(500):
        recorder.record(f"{number:016x}")

    def count(*arguments: Any) -> None:
        statements.append(arguments[-1])  # whether the statement is executed for many rows

    event.listen(engine.sync_engine, "before_cursor_execute", count)
    await recorder.write()
    assert statements.count(True) == 3
    assert len(statements) <= 9  # with those that begin transactions


async def test_uses_are_kept_while_the_database_is_unavailable() -> None:
    """While the database is unavailable, closing does not fail and the recorded uses are kept."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    recorder = LastUseRecorder(engine)
    recorder.record("0" * 16)
    for _ in range(2):
        await recorder.close()
        with pytest.raises(DatabaseUnavailable):
            await recorder.write()
    await engine.dispose()

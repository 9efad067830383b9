"""When keys were last used, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserStore
from auth.api_keys.last_use import LastUseRecorder
from auth.api_keys.store import KeyStore, KeyTerms
from auth.principal import Role, Scope
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable


async def make_keys(engine: AsyncEngine, count: int) -> list[str]:
    """The ids of new keys of a new user."""
    owner = (await UserStore(engine).add("ana", Role.CLIENT, "hash")).id
    terms = KeyTerms("maps", frozenset({Scope.PREDICT}), datetime.now(UTC) + timedelta(days=1))
    return [(await KeyStore(engine).create(owner, terms))[0].id for _ in range(count)]


async def last_use(engine: AsyncEngine, key_id: str) -> datetime | None:
    return (await KeyStore(engine).get(key_id)).last_used_at


async def test_uses_are_written_together(engine: AsyncEngine) -> None:
    """The last use of each key that was used comes to the database."""
    one, two, three = await make_keys(engine, 3)
    uses, before = LastUseRecorder(engine), datetime.now(UTC)
    for key_id in (two, one, two):
        uses.record(key_id)
    await uses.write()
    for key_id in (one, two):
        at = await last_use(engine, key_id)
        assert at is not None
        assert before <= at <= datetime.now(UTC)
    assert await last_use(engine, three) is None


async def test_a_later_use_is_not_overwritten(engine: AsyncEngine) -> None:
    """Of two processes' uses the later one stays, whichever is written last."""
    (key_id,) = await make_keys(engine, 1)
    early, late = LastUseRecorder(engine), LastUseRecorder(engine)
    early.record(key_id)
    late.record(key_id)
    await late.write()
    written = await last_use(engine, key_id)
    await early.write()
    assert await last_use(engine, key_id) == written


async def test_processes_do_not_wait_for_each_other_in_a_circle(engine: AsyncEngine) -> None:
    """Two processes that saw the same keys in opposite orders both write them."""
    made = await make_keys(engine, 20)
    seen = [LastUseRecorder(engine), LastUseRecorder(engine)]
    for _ in range(5):
        for uses, order in zip(seen, (made, made[::-1]), strict=True):
            for key_id in order:
                uses.record(key_id)
        await asyncio.gather(*(uses.write() for uses in seen))
    assert await last_use(engine, made[0]) is not None


async def test_uses_wait_for_the_database() -> None:
    """While the database is away nothing is lost, and the background goes on."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    uses = LastUseRecorder(engine)
    uses.record("0" * 16)
    for _ in range(2):
        await uses.close()
        with pytest.raises(DatabaseUnavailable):
            await uses.write()
    await engine.dispose()

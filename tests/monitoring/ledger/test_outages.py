"""The ledger while its database is away, does not answer, or answers something else; and its spool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress

import pytest
from sqlalchemy import Connection, func, select

from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.identity import Ids
from monitoring.ledger.ledger import State
from monitoring.ledger.spool import SpoolFull
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads
from storage.transactions import reading
from tests.monitoring.ledger.environment import LONG, LedgerEnvironment, cost, facts, fill, refused, until


async def test_while_the_database_is_away(environment: LedgerEnvironment) -> None:
    """Entries go to the spool, in order; once the database is back each is delivered once, and charged."""
    async with environment.ledger() as ledger:
        ids = [await ledger.record(facts(), cost())]
        async with environment.away():
            ids += [await ledger.record(facts(), cost()) for _ in range(5)]
            ids += sorted(await asyncio.gather(*(ledger.record(facts(), cost()) for _ in range(5))))
            assert ledger.state is State.SPOOLING
            assert environment.states[-1] == ("spooling", 10)
        await until(lambda: ledger.state is State.WRITING)
        ids.append(await ledger.record(facts(), cost()))
    assert [row.id for row in await environment.entries()] == ids
    assert await environment.used() == 12
    assert environment.states[0] == ("writing", 0)
    assert environment.states[-1] == ("writing", 0)
    assert list(environment.folder.glob("*.spool*")) == []


async def test_the_next_start_delivers_what_was_left_behind(environment: LedgerEnvironment) -> None:
    """A process that ends while the database is away leaves its spool; the next one brings it to the database."""
    async with AsyncExitStack() as outage:
        async with environment.ledger() as ledger:
            await outage.enter_async_context(environment.away())
            ids = [await ledger.record(facts(), cost()) for _ in range(3)]
        assert len(list(environment.folder.glob("*.spool"))) == 1
    async with environment.ledger() as ledger:
        ids.append(await ledger.record(facts(), cost()))
        await until(lambda: environment.states[-1] == ("writing", 0))
    rows = await environment.entries()
    assert [row.id for row in rows] == ids
    assert len({row.writer for row in rows}) == 2
    assert await environment.used() == 4
    assert list(environment.folder.glob("*.spool*")) == []


async def test_nowhere_to_write(environment: LedgerEnvironment) -> None:
    """With the database away and the spool full nothing is recorded and each caller hears it; it heals by itself."""
    async with environment.ledger() as ledger:
        async with environment.away():
            ids = await fill(ledger)
            assert ledger.state is State.FULL
            with pytest.raises(LedgerFull):
                await ledger.record(facts(note=LONG), cost())
        await until(lambda: ledger.state is State.WRITING)
        ids.append(await ledger.record(facts(), cost()))
    assert [row.id for row in await environment.entries()] == ids
    assert 20 < len(ids) < 100
    assert await environment.used() == len(ids)


async def test_the_database_alone_is_enough(environment: LedgerEnvironment) -> None:
    """Back again it takes entries, though the spool has no room left, not even to forget what was delivered."""
    async with environment.ledger() as ledger:
        (journal,) = environment.journals
        own = journal._spools[-1]
        async with environment.away():
            ids = await fill(ledger)
            refuse = "BEFORE DELETE ON waiting BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            own._connection.execute(f"CREATE TEMP TRIGGER stuck {refuse}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own, "has_capacity", lambda: False)
            patch.setattr(type(journal._policy), "shares_disk", lambda _: False)
            await until(lambda: ledger.state is State.WRITING)
            ids.append(await ledger.record(facts(), cost()))
        assert own.waiting == 0
    assert [row.id for row in await environment.entries()] == ids
    assert await environment.used() == len(ids)


async def test_a_full_disk_is_full_for_both(environment: LedgerEnvironment) -> None:
    """Where SQLite's file is on the spool's disk, a full one is waited for."""
    async with environment.ledger() as ledger:
        (journal,) = environment.journals
        assert journal._policy.shares_disk() is (environment.engine.dialect.name == "sqlite")
        async with environment.away():
            await fill(ledger)
            await until(lambda: ledger.state is State.FULL)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal._spools[-1], "has_capacity", lambda: False)
            patch.setattr(type(journal._policy), "shares_disk", lambda _: True)
            await until(lambda: ledger.state is State.FULL and not journal.spooled)
            await asyncio.sleep(0.6)
            assert ledger.state is State.FULL
        await until(lambda: ledger.state is State.WRITING)


async def test_a_batch_whose_answer_was_lost_comes_once(environment: LedgerEnvironment) -> None:
    """Links that the database has already are not delivered again, nor is their charge."""
    async with environment.ledger() as ledger:
        async with environment.away():
            ids = [await ledger.record(facts(), cost()) for _ in range(3)]
            (spool,) = (spool for spool in environment.journals[0]._spools if spool.waiting)
            texts = spool.first(10)
        await until(lambda: ledger.state is State.WRITING)
        # As if the crash had come between the database's commit and the spool's.
        await asyncio.to_thread(spool.append, texts)
        async with environment.away():
            ids.append(await ledger.record(facts(), cost()))
        await until(lambda: ledger.state is State.WRITING)
    assert [row.id for row in await environment.entries()] == ids
    assert await environment.used() == 4


async def test_a_database_that_was_restored(environment: LedgerEnvironment) -> None:
    """Where the chain's end is another than this process left, it begins a new chain, and nothing is lost."""
    async with environment.ledger() as ledger:
        await ledger.record(facts(), None)
        await environment.execute("DELETE FROM ledger_entries")
        await environment.execute("DELETE FROM ledger_payloads")
        await environment.execute("UPDATE ledger_heads SET seq = 0")
        after = [await ledger.record(facts(), cost()) for _ in range(2)]
        async with environment.away():
            spooled = [await ledger.record(facts(), cost()) for _ in range(2)]
            await environment.execute("UPDATE ledger_heads SET seq = 1 WHERE seq = 2")
        await until(lambda: ledger.state is State.WRITING)
    async with reading(environment.engine) as connection:
        found = list((await connection.execute(select(ledger_entries.c.id).order_by(ledger_entries.c.id))).scalars())
    assert found == [*after, *spooled]
    assert await environment.used() == 4


@contextmanager
def unlucky(store: LedgerStore, *, durable: bool) -> Iterator[None]:
    """Meanwhile every transaction ends in an error, though it may be `durable`."""
    whole = store.transaction

    @contextmanager
    def transaction() -> Iterator[Connection]:
        with suppress(_Undone) if not durable else nullcontext(), whole() as connection:
            yield connection
            if not durable:
                raise _Undone
        raise LedgerUnavailable

    store.transaction = transaction  # type: ignore[method-assign]
    yield
    store.transaction = whole  # type: ignore[method-assign]


class _Undone(Exception):
    """Ends a transaction."""


@pytest.mark.parametrize("then", [1, 2, 3, 5])
async def test_what_the_database_took_unheard(environment: LedgerEnvironment, then: int) -> None:
    """Entries that came into the database though their callers heard 503 hide none that is answered later."""
    async with environment.ledger() as ledger:
        (journal,) = environment.journals
        with unlucky(journal._store, durable=True), pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal._spools[-1], "append", _full)
            crowd = (ledger.record(facts(), cost()) for _ in range(3))
            assert {type(error) for error in await asyncio.gather(*crowd, return_exceptions=True)} == {LedgerFull}
        with unlucky(journal._store, durable=False):
            ids = sorted(await asyncio.gather(*(ledger.record(facts(), cost()) for _ in range(then))))
            assert ledger.state is State.SPOOLING
        await until(lambda: ledger.state is State.WRITING)
        ids.append(await ledger.record(facts(), cost()))
    recorded = sorted(row.id for row in await environment.entries())
    assert recorded[3:] == ids
    assert await environment.used() == 4 + then


def _full(_: object) -> None:
    raise SpoolFull


async def test_only_a_durable_checkpoint_was_seen(environment: LedgerEnvironment) -> None:
    """Where a checkpoint was not committed, no head says that it has seen it."""
    async with environment.ledger() as ledger:
        await ledger.record(facts(), None)
        (journal,) = environment.journals
        with unlucky(journal._store, durable=False), pytest.raises(LedgerUnavailable):
            await asyncio.to_thread(journal._store.checkpoint)
        await ledger.record(facts(), None)
        async with reading(environment.engine) as connection:
            assert (await connection.execute(select(func.max(ledger_heads.c.checkpoint)))).scalar_one() == 1
            assert (await connection.execute(select(func.max(ledger_checkpoints.c.number)))).scalar_one() == 1


async def test_ids_go_on_after_what_is_spooled(environment: LedgerEnvironment) -> None:
    """A start whose clock is behind gives no id that sorts before one that waits in a spool."""
    async with AsyncExitStack() as outage, environment.ledger() as ledger:
        ledger._ids = Ids(lambda: 4_000_000_000_000)
        await outage.enter_async_context(environment.away())
        ids = [await ledger.record(facts(), cost())]
    async with environment.ledger() as ledger:
        ids.append(await ledger.record(facts(), cost()))
        await until(lambda: environment.states[-1] == ("writing", 0))
    assert ids == sorted(ids)
    assert sorted(row.id for row in await environment.entries()) == ids


async def test_refusals_wait_for_the_database(environment: LedgerEnvironment) -> None:
    """Refusals that can be written nowhere are kept, and written once they can be."""
    async with environment.ledger() as ledger:
        async with environment.away():
            await fill(ledger)
            ledger.refuse(refused("corrupt_image"))
            ledger.refuse(refused("corrupt_image"))
            await asyncio.sleep(0)
        await until(lambda: ledger.state is State.WRITING)
        await ledger.record(facts(), None)
    assert (
        sum(document["count"] for document in await environment.documents() if document["code"] == "corrupt_image") == 2
    )

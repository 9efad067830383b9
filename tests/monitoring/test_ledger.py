"""The ledger of one process, on both databases, with real quotas as its till."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Row, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.settings import Settings
from api.stores import ledger_journal
from auth.database import reading, writing
from auth.errors import QuotaExceeded
from auth.principal import Role
from auth.quotas import month_of
from auth.tables import usage
from auth.usage import UsageMeter
from auth.users import UserStore
from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.entries import GENESIS, Entry, Head, Payload
from monitoring.ledger.identity import Ids
from monitoring.ledger.journal import Journal
from monitoring.ledger.ledger import Ledger, State
from monitoring.ledger.signing import Signer, Verifier, new_private_key
from monitoring.ledger.spool import SpoolFull
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads, ledger_payloads

LONG = "x" * 20_000
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


@dataclass
class House:
    """A database and a folder in which ledgers open one after the other."""

    url: str
    engine: AsyncEngine
    folder: Path
    key: str = field(default_factory=new_private_key)
    states: list[tuple[str, int]] = field(default_factory=list)
    journals: list[Journal] = field(default_factory=list)
    durable: int = 0

    @asynccontextmanager
    async def ledger(self, **changes: Any) -> AsyncIterator[Ledger]:
        options = {"signing_key": self.key, "spool_folder": self.folder, "spool_megabytes": 1, **changes}
        settings = Settings(_env_file=None, database_url=self.url, ledger=options)
        journal = ledger_journal(settings, UsageMeter(self.engine))
        self.journals.append(journal)
        async with Ledger(journal, self._hear, self._count, lambda: NOW) as ledger:
            yield ledger

    def _hear(self, state: State, spooled: int) -> None:
        self.states.append((state, spooled))

    def _count(self, entries: int) -> None:
        self.durable += entries

    async def execute(self, statement: str) -> None:
        async with writing(self.engine) as connection:
            await connection.execute(text(statement))

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Meanwhile no entry can be written to the database."""
        await self.execute("ALTER TABLE ledger_entries RENAME TO hidden")
        yield
        await self.execute("ALTER TABLE hidden RENAME TO ledger_entries")

    async def entries(self) -> list[Row[Any]]:
        """Every chain one after the other, as read from the database; each link and each head is checked."""
        async with reading(self.engine) as connection:
            ordered = select(ledger_entries).order_by(ledger_entries.c.writer, ledger_entries.c.seq)
            entries = list(await connection.execute(ordered))
            payloads = {(row.writer, row.seq): row for row in await connection.execute(select(ledger_payloads))}
            heads = list(await connection.execute(select(ledger_heads)))
        verifier = Verifier([Signer(self.key).public_key])
        for head in heads:
            chain = [row for row in entries if row.writer == head.writer]
            assert [row.seq for row in chain] == list(range(1, len(chain) + 1))
            previous = GENESIS
            for row in chain:
                assert row.hash == Entry(*row).computed_hash(previous)
                payload = payloads.pop((row.writer, row.seq))
                assert Payload(*payload[3:]).commitment() == row.commitment
                previous = row.hash
            assert (head.seq, head.hash) == (len(chain), previous)
            signed = Head(head.writer, head.seq, head.hash, head.checkpoint)
            assert verifier.holds(signed.text(), head.key, head.signature)
        assert payloads == {}
        return entries

    async def documents(self) -> list[dict[str, Any]]:
        """In the order of their ids."""
        async with reading(self.engine) as connection:
            ordered = select(ledger_payloads.c.document).order_by(ledger_payloads.c.id)
            return [json.loads(text) for text in (await connection.execute(ordered)).scalars()]

    async def used(self, owner: str = "user:ana") -> int:
        async with reading(self.engine) as connection:
            counted = select(usage.c.requests).where(usage.c.owner == owner)
            return (await connection.execute(counted)).scalar_one_or_none() or 0


@pytest.fixture
def house(database_url: str, engine: AsyncEngine, tmp_path: Path) -> House:
    return House(database_url, engine, tmp_path / "spool")


def facts(principal: str = "ana", **changes: Any) -> dict[str, Any]:
    model = {"name": "stub", "version": "1.0", "digest": "d" * 64, "backend": "stub"}
    output = {"index": 0, "label": "forest", "confidence": 0.1, "probabilities": {"forest": 0.1}}
    always = {"v": 1, "principal": principal, "key": None, "status": 200, "code": None, "count": 1, "image": {}}
    return {**always, "model": model, "preprocessing": "1", "runtime": {}, "output": output, **changes}


def refused(code: str, principal: str = "ana") -> dict[str, Any]:
    nothing = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))
    return facts(principal, status=415, code=code, **nothing)


def cost(owner: str = "user:ana") -> dict[str, Any]:
    return {"owners": [owner], "month": month_of(NOW.timestamp()), "requests": 1, "pixels": 7}


async def fill(ledger: Ledger) -> list[str]:
    """Record long entries until one is refused; returns the ids of the others."""
    ids: list[str] = []
    with suppress(LedgerFull):
        while len(ids) < 100:
            ids.append(await ledger.record(facts(note=LONG), cost()))
    return ids


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (it changes in other threads)
            await asyncio.sleep(0.01)


async def test_recorded_is_durable(house: House) -> None:
    """When `record` returns the entry is in the database, with its payload, its hash and a signed head."""
    async with house.ledger() as ledger:
        first = await ledger.record(facts(), cost())
        second = await ledger.record(facts("bob", note="é\0\ud800"), None)
        assert [row.id for row in await house.entries()] == [first, second]
        assert await house.used() == 1
    assert [document["principal"] for document in await house.documents()] == ["ana", "bob"]
    assert (await house.documents())[0]["output"]["probabilities"] == {"forest": 0.1}
    assert house.durable == 2


async def test_a_crowd_shares_transactions(house: House) -> None:
    """Two hundred entries at once take a handful of transactions, and their ids are in the chain's order."""
    async with house.ledger() as ledger:
        commits: list[object] = []
        store: Any = house.journals[0]._store
        event.listen(store._engine, "commit", commits.append)
        ids = await asyncio.gather(*(ledger.record(facts(), cost()) for _ in range(200)))
    assert len(commits) <= 5  # the last is a checkpoint
    assert [row.id for row in await house.entries()] == sorted(ids)
    assert await house.used() == 200


async def test_entries_that_have_time_wait_for_each_other(house: House) -> None:
    """One that has time shares its transaction with the next, or goes alone a little later; others wait for nobody."""
    async with house.ledger() as ledger:
        commits: list[object] = []
        store: Any = house.journals[0]._store
        event.listen(store._engine, "commit", commits.append)
        first = asyncio.ensure_future(ledger.record(facts(), cost(), has_time=True))
        await asyncio.sleep(0)
        assert ledger._writer is None
        ids = [await ledger.record(facts(), cost(), has_time=True), await first]
        assert len(commits) == 1
        ids.append(await ledger.record(facts(), cost(), has_time=True))
        assert len(commits) == 2
        patient = asyncio.ensure_future(ledger.record(facts(), cost(), has_time=True))
        await asyncio.sleep(0)
        ids += [await ledger.record(facts(), cost()), await patient]
        assert len(commits) == 3
        last = asyncio.ensure_future(ledger.record(facts(), cost(), has_time=True))
        await asyncio.sleep(0)
    ids.append(await last)  # whoever stops does not wait for company
    assert [row.id for row in await house.entries()] == sorted(ids)


async def test_a_charge_that_is_refused_leaves_a_refusal(house: House) -> None:
    """Past a quota the caller hears of it; the entry has its code and nothing of the image or the answer."""
    user = await UserStore(house.engine).add("ana", Role.CLIENT, "hash")
    await house.execute("UPDATE users SET monthly_requests = 2")
    owner = f"user:{user.id}"
    async with house.ledger() as ledger:
        answers = await asyncio.gather(*(ledger.record(facts(), cost(owner)) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, QuotaExceeded) for answer in answers) == 3
    documents = await house.documents()
    assert [document["code"] for document in documents] == [None] * 2 + ["quota_exceeded"] * 3
    for document in documents[2:]:
        assert (document["status"], document["output"], document["image"]) == (429, None, None)
    assert await house.used(owner) == 2
    await house.entries()


async def test_while_the_database_is_away(house: House) -> None:
    """Entries go to the spool, in order; once the database is back each is delivered once, and charged."""
    async with house.ledger() as ledger:
        ids = [await ledger.record(facts(), cost())]
        async with house.away():
            ids += [await ledger.record(facts(), cost()) for _ in range(5)]
            ids += sorted(await asyncio.gather(*(ledger.record(facts(), cost()) for _ in range(5))))
            assert ledger.state is State.SPOOLING
            assert house.states[-1] == ("spooling", 10)
        await until(lambda: ledger.state is State.WRITING)
        ids.append(await ledger.record(facts(), cost()))
    assert [row.id for row in await house.entries()] == ids
    assert await house.used() == 12
    assert house.states[0] == ("writing", 0)
    assert house.states[-1] == ("writing", 0)
    assert list(house.folder.glob("*.spool*")) == []


async def test_the_next_start_delivers_what_was_left_behind(house: House) -> None:
    """A process that ends while the database is away leaves its spool; the next one brings it to the database."""
    async with AsyncExitStack() as outage:
        async with house.ledger() as ledger:
            await outage.enter_async_context(house.away())
            ids = [await ledger.record(facts(), cost()) for _ in range(3)]
        assert len(list(house.folder.glob("*.spool"))) == 1
    async with house.ledger() as ledger:
        ids.append(await ledger.record(facts(), cost()))
        await until(lambda: house.states[-1] == ("writing", 0))
    rows = await house.entries()
    assert [row.id for row in rows] == ids
    assert len({row.writer for row in rows}) == 2
    assert await house.used() == 4
    assert list(house.folder.glob("*.spool*")) == []


async def test_nowhere_to_write(house: House) -> None:
    """With the database away and the spool full nothing is recorded and each caller hears it; it heals by itself."""
    async with house.ledger() as ledger:
        async with house.away():
            ids = await fill(ledger)
            assert ledger.state is State.FULL
            with pytest.raises(LedgerFull):
                await ledger.record(facts(note=LONG), cost())
        await until(lambda: ledger.state is State.WRITING)
        ids.append(await ledger.record(facts(), cost()))
    assert [row.id for row in await house.entries()] == ids
    assert 20 < len(ids) < 100
    assert await house.used() == len(ids)


async def test_the_database_alone_is_enough(house: House) -> None:
    """Back again it takes entries, though the spool has no room left, not even to forget what was delivered."""
    async with house.ledger() as ledger:
        (journal,) = house.journals
        own = journal._spools[-1]
        async with house.away():
            ids = await fill(ledger)
            refuse = "BEFORE DELETE ON waiting BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            own._connection.execute(f"CREATE TEMP TRIGGER stuck {refuse}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own, "has_room", lambda: False)
            patch.setattr(type(journal._policy), "shares_disk", lambda _: False)
            await until(lambda: ledger.state is State.WRITING)
            ids.append(await ledger.record(facts(), cost()))
        assert own.waiting == 0
    assert [row.id for row in await house.entries()] == ids
    assert await house.used() == len(ids)


async def test_a_full_disk_is_full_for_both(house: House) -> None:
    """Where SQLite's file is on the spool's disk, a full one is waited for."""
    async with house.ledger() as ledger:
        (journal,) = house.journals
        assert journal._policy.shares_disk() is (house.engine.dialect.name == "sqlite")
        async with house.away():
            await fill(ledger)
            await until(lambda: ledger.state is State.FULL)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal._spools[-1], "has_room", lambda: False)
            patch.setattr(type(journal._policy), "shares_disk", lambda _: True)
            await until(lambda: ledger.state is State.FULL and not journal.spooled)
            await asyncio.sleep(0.6)
            assert ledger.state is State.FULL
        await until(lambda: ledger.state is State.WRITING)


async def test_a_batch_whose_answer_was_lost_comes_once(house: House) -> None:
    """Links that the database has already are not delivered again, nor is their charge."""
    async with house.ledger() as ledger:
        async with house.away():
            ids = [await ledger.record(facts(), cost()) for _ in range(3)]
            (spool,) = (spool for spool in house.journals[0]._spools if spool.waiting)
            texts = spool.first(10)
        await until(lambda: ledger.state is State.WRITING)
        # As if the crash had come between the database's commit and the spool's.
        await asyncio.to_thread(spool.append, texts)
        async with house.away():
            ids.append(await ledger.record(facts(), cost()))
        await until(lambda: ledger.state is State.WRITING)
    assert [row.id for row in await house.entries()] == ids
    assert await house.used() == 4


async def test_a_database_that_was_restored(house: House) -> None:
    """Where the chain's end is another than this process left, it begins a new chain, and nothing is lost."""
    async with house.ledger() as ledger:
        await ledger.record(facts(), None)
        await house.execute("DELETE FROM ledger_entries")
        await house.execute("DELETE FROM ledger_payloads")
        await house.execute("UPDATE ledger_heads SET seq = 0")
        after = [await ledger.record(facts(), cost()) for _ in range(2)]
        async with house.away():
            spooled = [await ledger.record(facts(), cost()) for _ in range(2)]
            await house.execute("UPDATE ledger_heads SET seq = 1 WHERE seq = 2")
        await until(lambda: ledger.state is State.WRITING)
    async with reading(house.engine) as connection:
        found = list((await connection.execute(select(ledger_entries.c.id).order_by(ledger_entries.c.id))).scalars())
    assert found == [*after, *spooled]
    assert await house.used() == 4


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
async def test_what_the_database_took_unheard(house: House, then: int) -> None:
    """Entries that came into the database though their callers heard 503 hide none that is answered later."""
    async with house.ledger() as ledger:
        (journal,) = house.journals
        with unlucky(journal._store, durable=True), pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal._spools[-1], "append", _full)
            crowd = (ledger.record(facts(), cost()) for _ in range(3))
            assert {type(error) for error in await asyncio.gather(*crowd, return_exceptions=True)} == {LedgerFull}
        with unlucky(journal._store, durable=False):
            ids = sorted(await asyncio.gather(*(ledger.record(facts(), cost()) for _ in range(then))))
            assert ledger.state is State.SPOOLING
        await until(lambda: ledger.state is State.WRITING)
        ids.append(await ledger.record(facts(), cost()))
    recorded = sorted(row.id for row in await house.entries())
    assert recorded[3:] == ids
    assert await house.used() == 4 + then


def _full(_: object) -> None:
    raise SpoolFull


async def test_a_new_chain_judges_anew(house: House) -> None:
    """A batch that has to begin another chain is charged there: the caller hears what the record says."""
    user = await UserStore(house.engine).add("ana", Role.CLIENT, "hash")
    owner = f"user:{user.id}"
    async with house.ledger() as ledger:
        await ledger.record(facts(), cost(owner))
        await house.execute("UPDATE ledger_heads SET seq = 7 WHERE seq = 1")
        (journal,) = house.journals
        begin = journal._store.open_chain

        def after_a_change(writer: str) -> str:
            with journal._store.transaction() as connection:
                connection.execute(text("UPDATE users SET monthly_requests = 1"))
            return begin(writer)

        journal._store.open_chain = after_a_change  # type: ignore[method-assign]
        with pytest.raises(QuotaExceeded):
            await ledger.record(facts(), cost(owner))
    assert [document["code"] for document in await house.documents()] == [None, "quota_exceeded"]
    assert await house.used(owner) == 1


async def test_only_a_durable_checkpoint_was_seen(house: House) -> None:
    """Where a checkpoint was not committed, no head says that it has seen it."""
    async with house.ledger() as ledger:
        await ledger.record(facts(), None)
        (journal,) = house.journals
        with unlucky(journal._store, durable=False), pytest.raises(LedgerUnavailable):
            await asyncio.to_thread(journal._store.checkpoint)
        await ledger.record(facts(), None)
        async with reading(house.engine) as connection:
            assert (await connection.execute(select(func.max(ledger_heads.c.checkpoint)))).scalar_one() == 1
            assert (await connection.execute(select(func.max(ledger_checkpoints.c.number)))).scalar_one() == 1


async def test_ids_go_on_after_what_is_spooled(house: House) -> None:
    """A start whose clock is behind gives no id that sorts before one that waits in a spool."""
    async with AsyncExitStack() as outage, house.ledger() as ledger:
        ledger._ids = Ids(lambda: 4_000_000_000_000)
        await outage.enter_async_context(house.away())
        ids = [await ledger.record(facts(), cost())]
    async with house.ledger() as ledger:
        ids.append(await ledger.record(facts(), cost()))
        await until(lambda: house.states[-1] == ("writing", 0))
    assert ids == sorted(ids)
    assert sorted(row.id for row in await house.entries()) == ids


async def test_refusals_are_recorded_behind_the_answer(house: House) -> None:
    """Each refused request is an entry; a flood of one caller's shares entries that add up to all of them."""
    async with house.ledger() as ledger:
        for code in ("unsupported_image", "corrupt_image"):
            ledger.refuse(refused(code))
        for _ in range(5000):
            ledger.refuse(refused("rate_limited", "bob"))
    documents = await house.documents()
    assert {document["code"] for document in documents if document["principal"] == "ana"} == {
        "unsupported_image",
        "corrupt_image",
    }
    flood = [document["count"] for document in documents if document["principal"] == "bob"]
    assert sum(flood) == 5000
    assert len(flood) <= 210
    await house.entries()


async def test_ids_ascend_whatever_waits(house: House) -> None:
    """In a chain ids ascend, also where more wait than one transaction takes, and refusals come between them."""
    async with house.ledger() as ledger:
        for code in ("unsupported_image", "corrupt_image"):
            recording = [asyncio.ensure_future(ledger.record(facts(), None)) for _ in range(700)]
            await asyncio.sleep(0)
            ledger.refuse(refused(code))
            await asyncio.gather(*recording)
    ids = [row.id for row in await house.entries()]
    assert len(ids) == 1402
    assert ids == sorted(ids)


async def test_refusals_wait_for_the_database(house: House) -> None:
    """Refusals that can be written nowhere are kept, and written once they can be."""
    async with house.ledger() as ledger:
        async with house.away():
            await fill(ledger)
            ledger.refuse(refused("corrupt_image"))
            ledger.refuse(refused("corrupt_image"))
            await asyncio.sleep(0)
        await until(lambda: ledger.state is State.WRITING)
        await ledger.record(facts(), None)
    assert sum(document["count"] for document in await house.documents() if document["code"] == "corrupt_image") == 2


async def test_switched_off_it_counts_alone(house: House) -> None:
    """Without the ledger quotas are counted as ever, and nothing else is kept."""
    async with house.ledger(enabled=False) as ledger:
        assert await ledger.record(facts(), cost())
    assert await house.entries() == []
    assert await house.used() == 1


async def test_writers_do_not_meet(house: House) -> None:
    """Two ledgers on one database write chains of their own, at the same time."""
    async with house.ledger() as one, house.ledger() as two:
        await asyncio.gather(*(ledger.record(facts(), cost()) for ledger in [one, two] * 50))
    rows = await house.entries()
    assert len(rows) == 100
    assert len({row.writer for row in rows}) == 2
    assert await house.used() == 100

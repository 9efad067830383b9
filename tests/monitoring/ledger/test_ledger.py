"""The ledger of one process, on both databases, with real quotas as its till."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text

from auth.accounts.store import UserStore
from auth.errors import QuotaExceeded
from auth.principal import Role
from tests.monitoring.ledger.environment import LedgerEnvironment, cost, facts, refused


async def test_recorded_is_durable(environment: LedgerEnvironment) -> None:
    """When `record` returns the entry is in the database, with its payload, its hash and a signed head."""
    async with environment.ledger() as ledger:
        first = await ledger.record(facts(), cost())
        second = await ledger.record(facts("bob", note="é\0\ud800"), None)
        assert [row.id for row in await environment.entries()] == [first, second]
        assert await environment.used() == 1
    assert [document["principal"] for document in await environment.documents()] == ["ana", "bob"]
    assert (await environment.documents())[0]["output"]["probabilities"] == {"forest": 0.1}
    assert environment.durable == 2


async def test_a_crowd_shares_transactions(environment: LedgerEnvironment) -> None:
    """Two hundred entries at once take a handful of transactions, and their ids are in the chain's order."""
    async with environment.ledger() as ledger:
        commits: list[object] = []
        store: Any = environment.journals[0]._store
        event.listen(store._engine, "commit", commits.append)
        ids = await asyncio.gather(*(ledger.record(facts(), cost()) for _ in range(200)))
    assert len(commits) <= 5  # the last is a checkpoint
    assert [row.id for row in await environment.entries()] == sorted(ids)
    assert await environment.used() == 200


async def test_entries_that_have_time_wait_for_each_other(environment: LedgerEnvironment) -> None:
    """One that has time shares its transaction with the next, or goes alone a little later; others wait for nobody."""
    async with environment.ledger() as ledger:
        commits: list[object] = []
        store: Any = environment.journals[0]._store
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
    assert [row.id for row in await environment.entries()] == sorted(ids)


async def test_a_charge_that_is_refused_leaves_a_refusal(environment: LedgerEnvironment) -> None:
    """Past a quota the caller hears of it; the entry has its code and nothing of the image or the answer."""
    user = await UserStore(environment.engine).add("ana", Role.CLIENT, "hash")
    await environment.execute("UPDATE users SET monthly_requests = 2")
    owner = f"user:{user.id}"
    async with environment.ledger() as ledger:
        answers = await asyncio.gather(*(ledger.record(facts(), cost(owner)) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, QuotaExceeded) for answer in answers) == 3
    documents = await environment.documents()
    assert [document["code"] for document in documents] == [None] * 2 + ["quota_exceeded"] * 3
    for document in documents[2:]:
        assert (document["status"], document["output"], document["image"]) == (429, None, None)
    assert await environment.used(owner) == 2
    await environment.entries()


async def test_a_new_chain_judges_anew(environment: LedgerEnvironment) -> None:
    """A batch that has to begin another chain is charged there: the caller hears what the record says."""
    user = await UserStore(environment.engine).add("ana", Role.CLIENT, "hash")
    owner = f"user:{user.id}"
    async with environment.ledger() as ledger:
        await ledger.record(facts(), cost(owner))
        await environment.execute("UPDATE ledger_heads SET seq = 7 WHERE seq = 1")
        (journal,) = environment.journals
        begin = journal._store.open_chain

        def after_a_change(writer: str) -> str:
            with journal._store.transaction() as connection:
                connection.execute(text("UPDATE users SET monthly_requests = 1"))
            return begin(writer)

        journal._store.open_chain = after_a_change  # type: ignore[method-assign]
        with pytest.raises(QuotaExceeded):
            await ledger.record(facts(), cost(owner))
    assert [document["code"] for document in await environment.documents()] == [None, "quota_exceeded"]
    assert await environment.used(owner) == 1


async def test_refusals_are_recorded_behind_the_answer(environment: LedgerEnvironment) -> None:
    """Each refused request is an entry; a flood of one caller's shares entries that add up to all of them."""
    async with environment.ledger() as ledger:
        for code in ("unsupported_image", "corrupt_image"):
            ledger.refuse(refused(code))
        for _ in range(5000):
            ledger.refuse(refused("rate_limited", "bob"))
    documents = await environment.documents()
    assert {document["code"] for document in documents if document["principal"] == "ana"} == {
        "unsupported_image",
        "corrupt_image",
    }
    flood = [document["count"] for document in documents if document["principal"] == "bob"]
    assert sum(flood) == 5000
    assert len(flood) <= 210
    await environment.entries()


async def test_ids_ascend_whatever_waits(environment: LedgerEnvironment) -> None:
    """In a chain ids ascend, also where more wait than one transaction takes, and refusals come between them."""
    async with environment.ledger() as ledger:
        for code in ("unsupported_image", "corrupt_image"):
            recording = [asyncio.ensure_future(ledger.record(facts(), None)) for _ in range(700)]
            await asyncio.sleep(0)
            ledger.refuse(refused(code))
            await asyncio.gather(*recording)
    ids = [row.id for row in await environment.entries()]
    assert len(ids) == 1402
    assert ids == sorted(ids)


async def test_switched_off_it_counts_alone(environment: LedgerEnvironment) -> None:
    """Without the ledger quotas are counted as ever, and nothing else is kept."""
    async with environment.ledger(enabled=False) as ledger:
        assert await ledger.record(facts(), cost())
    assert await environment.entries() == []
    assert await environment.used() == 1


async def test_writers_do_not_meet(environment: LedgerEnvironment) -> None:
    """Two ledgers on one database write chains of their own, at the same time."""
    async with environment.ledger() as one, environment.ledger() as two:
        await asyncio.gather(*(ledger.record(facts(), cost()) for ledger in [one, two] * 50))
    rows = await environment.entries()
    assert len(rows) == 100
    assert len({row.writer for row in rows}) == 2
    assert await environment.used() == 100

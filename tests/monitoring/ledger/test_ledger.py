"""The ledger of one process, on both databases, with real quotas as its till."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text

from auth.accounts.store import UserStore
from auth.errors import QuotaExceeded
from auth.principal import Role
from tests.monitoring.ledger.environment import House, cost, facts, refused


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

"""The ledger of one process."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
from sqlalchemy import text

from auth.accounts.store import UserStore
from auth.errors import QuotaExceeded
from auth.principal import Role
from monitoring.ledger.ledger import LINGER_S, MAX_REFUSALS
from tests.monitoring.ledger.environment import LedgerEnvironment, build_charge, build_facts, build_refusal
from tests.monitoring.ledger.faults import FaultyStore
from tests.support.polling import PATIENCE_S


async def test_recorded_entries_are_durable(environment: LedgerEnvironment) -> None:
    """When `record` returns, the entry is in the database with its payload, its hash and a signed head."""
    async with environment.ledger() as ledger:
        first = await ledger.record(build_facts(), build_charge())
        second = await ledger.record(build_facts("bob", note="é\0\ud800"), None)
        assert [row.id for row in await environment.read_entries()] == [first, second]
        assert await environment.count_charged() == 1
    assert [document["principal"] for document in await environment.read_documents()] == ["ana", "bob"]
    assert (await environment.read_documents())[0]["output"]["probabilities"] == {"forest": 0.1}
    assert environment.durable == 2


async def test_concurrent_entries_share_transactions(environment: LedgerEnvironment) -> None:
    """Two hundred concurrent entries share a few transactions, and their ids follow the chain's order."""
    async with environment.ledger() as ledger:
        ids = await asyncio.gather(*(ledger.record(build_facts(), build_charge()) for _ in range(200)))
    assert environment.store.batches <= 4
    assert [row.id for row in await environment.read_entries()] == sorted(ids)
    assert await environment.count_charged() == 200


async def test_lingering_entries_wait_for_each_other(environment: LedgerEnvironment) -> None:
    """An entry that lingers shares its transaction with the next one, or is written alone a little later."""
    async with environment.ledger() as ledger:
        store = environment.store
        first = asyncio.ensure_future(ledger.record(build_facts(), build_charge(), linger_for=1))
        await asyncio.sleep(0)
        assert store.batches == 0
        ids = [await ledger.record(build_facts(), build_charge(), linger_for=1), await first]
        assert store.batches == 1
        ids.append(await ledger.record(build_facts(), build_charge(), linger_for=1))
        assert store.batches == 2
        lingering = asyncio.ensure_future(ledger.record(build_facts(), build_charge(), linger_for=1))
        await asyncio.sleep(0)
        ids += [await ledger.record(build_facts(), build_charge()), await lingering]
        assert store.batches == 3
        last = asyncio.ensure_future(ledger.record(build_facts(), build_charge(), linger_for=1))
        await asyncio.sleep(0)
    ids.append(await last)  # closing the ledger writes it without waiting
    assert [row.id for row in await environment.read_entries()] == sorted(ids)


async def test_an_entry_lingers_for_as_many_others_as_it_may(environment: LedgerEnvironment) -> None:
    """Three entries that each linger for two others share one transaction."""
    async with environment.ledger() as ledger:
        entries = [asyncio.ensure_future(ledger.record(build_facts(), build_charge(), linger_for=2)) for _ in range(2)]
        await asyncio.sleep(0)
        assert environment.store.batches == 0
        await asyncio.gather(*entries, ledger.record(build_facts(), build_charge(), linger_for=2))
        assert environment.store.batches == 1


async def test_entries_that_arrive_when_an_earlier_one_has_lingered(environment: LedgerEnvironment) -> None:
    """While the event loop is late, further entries can arrive after the time at which the first one is due."""

    async def delay_event_loop() -> None:
        time.sleep(5 * LINGER_S)  # noqa: ASYNC251

    async with environment.ledger() as ledger:
        first, *others = (ledger.record(build_facts(), build_charge(), linger_for=4) for _ in range(3))
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(first, delay_event_loop(), *others)
        assert environment.store.batches == 1


async def test_an_entry_does_not_linger_longer_because_an_earlier_one_does(environment: LedgerEnvironment) -> None:
    """An entry that lingers for a shorter time than an earlier one starts the transaction for both."""
    async with environment.ledger() as ledger:
        first = asyncio.ensure_future(ledger.record(build_facts(), build_charge(), linger_for=1_000_000))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            await ledger.record(build_facts(), build_charge(), linger_for=2)
            await first
        assert environment.store.batches == 1
        patient = asyncio.ensure_future(ledger.record(build_facts(), build_charge(), linger_for=1))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(patient, ledger.record(build_facts(), build_charge(), linger_for=1_000_000))
        assert environment.store.batches == 2


async def test_a_rejected_charge_is_recorded_as_a_rejection(environment: LedgerEnvironment) -> None:
    """When a quota is exceeded, the caller gets the error, and the entry has its code but no image or output."""
    user = await UserStore(environment.engine).add("ana", Role.CLIENT, "hash")
    await environment.execute("UPDATE users SET monthly_requests = 2")
    owner = f"user:{user.id}"
    async with environment.ledger() as ledger:
        recording = (ledger.record(build_facts(), build_charge(owner)) for _ in range(5))
        results = await asyncio.gather(*recording, return_exceptions=True)
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 3
    documents = await environment.read_documents()
    assert [document["code"] for document in documents] == [None] * 2 + ["quota_exceeded"] * 3
    for document in documents[2:]:
        assert (document["status"], document["output"], document["image"]) == (429, None, None)
    assert await environment.count_charged(owner) == 2
    await environment.read_entries()


class QuotaReducingStore(FaultyStore):
    """Lowers every quota to one request when it opens a chain other than the first."""

    chains = 0

    def open_chain(self, writer: str) -> str:
        self.chains += 1
        if self.chains > 1:
            with self.transaction() as connection:
                connection.execute(text("UPDATE users SET monthly_requests = 1"))
        return super().open_chain(writer)


async def test_a_batch_in_a_new_chain_is_charged_again(environment: LedgerEnvironment) -> None:
    """When a batch has to begin a new chain, quotas are checked again, so that result and record agree."""
    user = await UserStore(environment.engine).add("ana", Role.CLIENT, "hash")
    owner = f"user:{user.id}"
    async with environment.ledger(store_type=QuotaReducingStore) as ledger:
        await ledger.record(build_facts(), build_charge(owner))
        await environment.execute("UPDATE ledger_heads SET seq = 7 WHERE seq = 1")
        with pytest.raises(QuotaExceeded):
            await ledger.record(build_facts(), build_charge(owner))
    assert [document["code"] for document in await environment.read_documents()] == [None, "quota_exceeded"]
    assert await environment.count_charged(owner) == 1


async def test_rejections_are_recorded_in_the_background(environment: LedgerEnvironment) -> None:
    """Each rejected request gets an entry; a flood from one caller shares entries whose counts add up to the total."""
    async with environment.ledger() as ledger:
        for code in ("unsupported_image", "corrupt_image"):
            ledger.record_refusal(build_refusal(code))
        for _ in range(5000):
            ledger.record_refusal(build_refusal("rate_limited", "bob"))
    documents = await environment.read_documents()
    assert {document["code"] for document in documents if document["principal"] == "ana"} == {
        "unsupported_image",
        "corrupt_image",
    }
    counts = [document["count"] for document in documents if document["principal"] == "bob"]
    assert sum(counts) == 5000
    assert len(counts) <= 210
    await environment.read_entries()


async def test_a_prediction_does_not_wait_for_many_rejections(environment: LedgerEnvironment) -> None:
    """A hundred rejections are written in several transactions, so a prediction shares one with only some of them."""
    async with environment.ledger() as ledger:
        for _ in range(100):
            ledger.record_refusal(build_refusal("corrupt_image"))
        await ledger.record(build_facts(), None)
    assert environment.store.batches == math.ceil(100 / MAX_REFUSALS)
    assert len(await environment.read_entries()) == 101


async def test_ids_ascend_in_a_chain(environment: LedgerEnvironment) -> None:
    """Ids ascend in a chain even when more entries wait than fit into a transaction, with rejections between them."""
    async with environment.ledger() as ledger:
        for code in ("unsupported_image", "corrupt_image"):
            recording = [asyncio.ensure_future(ledger.record(build_facts(), None)) for _ in range(700)]
            await asyncio.sleep(0)
            ledger.record_refusal(build_refusal(code))
            await asyncio.gather(*recording)
    ids = [row.id for row in await environment.read_entries()]
    assert len(ids) == 1402
    assert ids == sorted(ids)


async def test_a_disabled_ledger_charges_quotas_only(environment: LedgerEnvironment) -> None:
    """While the ledger is disabled, quotas are charged but no entry is written."""
    async with environment.ledger(enabled=False) as ledger:
        assert await ledger.record(build_facts(), build_charge())
    assert await environment.read_entries() == []
    assert (await environment.count_charged(), environment.durable) == (1, 0)


async def test_two_ledgers_write_separate_chains(environment: LedgerEnvironment) -> None:
    """Two ledgers on one database write separate chains concurrently."""
    async with environment.ledger() as one, environment.ledger() as two:
        await asyncio.gather(*(ledger.record(build_facts(), build_charge()) for ledger in [one, two] * 50))
    rows = await environment.read_entries()
    assert len(rows) == 100
    assert len({row.writer for row in rows}) == 2
    assert await environment.count_charged() == 100

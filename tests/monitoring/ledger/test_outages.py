"""The ledger and its spool while the database is unavailable or was changed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from monitoring.chains.signing import Signer, Verifier
from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.ledger import MAX_REFUSALS, REFUSAL_DELAY_S, LedgerState
from monitoring.ledger.records import read_records
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.verification.stream import verify
from storage.transactions import reading
from tests.monitoring.ledger.environment import (
    LONG_TEXT,
    NOW,
    LedgerEnvironment,
    build_charge,
    build_facts,
    build_refusal,
    fill_spool,
)
from tests.monitoring.ledger.faults import REFUSE_DELETION, HangingStore
from tests.monitoring.ledger.ledgers import open_database
from tests.support.polling import PATIENCE_S, wait_until_async


async def test_a_commit_behind_a_checkpoint_that_hangs_is_spooled(
    environment: LedgerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database first hangs during a checkpoint. An entry waits until that is aborted, and then its own commit."""
    monkeypatch.setattr("monitoring.ledger.ledger.COMMIT_TIMEOUT_S", 0.1)
    monkeypatch.setattr("monitoring.ledger.ledger.CHECKPOINT_INTERVAL_S", 0.01)
    async with environment.ledger(store_type=HangingStore) as ledger:
        store = environment.store
        assert isinstance(store, HangingStore)
        store.hanging = True
        await asyncio.to_thread(store.hung.wait)
        async with asyncio.timeout(PATIENCE_S):
            entry = await ledger.record(build_facts(), build_charge())
        assert ledger.state is LedgerState.SPOOLING
        store.hanging = False
        store.abort_transaction()  # a checkpoint or a delivery
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
    assert [row.id for row in await environment.read_entries()] == [entry]


async def test_entries_are_spooled_during_an_outage(environment: LedgerEnvironment) -> None:
    """During an outage entries are spooled in order; afterwards each is delivered and charged once."""
    async with environment.ledger() as ledger:
        ids = [await ledger.record(build_facts(), build_charge())]
        async with environment.outage():
            ids += [await ledger.record(build_facts(), build_charge()) for _ in range(5)]
            ids += sorted(await asyncio.gather(*(ledger.record(build_facts(), build_charge()) for _ in range(5))))
            assert ledger.state is LedgerState.SPOOLING
            assert environment.states[-1] == ("spooling", 10)
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
        ids.append(await ledger.record(build_facts(), build_charge()))
    assert [row.id for row in await environment.read_entries()] == ids
    assert await environment.count_charged() == 12
    assert environment.states[0] == ("writing", 0)
    assert environment.states[-1] == ("writing", 0)
    assert list(environment.path.glob("*.spool*")) == []


async def test_the_next_start_delivers_what_was_left_behind(environment: LedgerEnvironment) -> None:
    """A process that ends during an outage leaves its spool behind; the next one delivers it to the database."""
    async with AsyncExitStack() as outage:
        async with environment.ledger() as ledger:
            await outage.enter_async_context(environment.outage())
            ids = [await ledger.record(build_facts(), build_charge()) for _ in range(3)]
        assert len(list(environment.path.glob("*.spool"))) == 1
    async with environment.ledger() as ledger:
        ids.append(await ledger.record(build_facts(), build_charge()))
        await wait_until_async(lambda: environment.states[-1] == ("writing", 0))
    rows = await environment.read_entries()
    assert [row.id for row in rows] == ids
    assert len({row.writer for row in rows}) == 2
    assert await environment.count_charged() == 4
    assert list(environment.path.glob("*.spool*")) == []


async def test_a_full_spool_rejects_entries(environment: LedgerEnvironment) -> None:
    """During an outage with a full spool each caller gets LedgerFull; afterwards the ledger recovers by itself."""
    async with environment.ledger() as ledger:
        async with environment.outage():
            ids = await fill_spool(ledger)
            assert ledger.state is LedgerState.FULL
            with pytest.raises(LedgerFull):
                await ledger.record(build_facts(note=LONG_TEXT), build_charge())
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
        ids.append(await ledger.record(build_facts(), build_charge()))
    assert [row.id for row in await environment.read_entries()] == ids
    assert 20 < len(ids) < 100
    assert await environment.count_charged() == len(ids)


async def test_the_database_suffices_without_a_spool(environment: LedgerEnvironment) -> None:
    """After an outage entries go to the database even if the spool's disk is too full to delete delivered entries."""
    folder = replace(environment.spool_folder(), database=None)
    async with environment.ledger(folder=folder) as ledger:
        async with environment.outage():
            ids = await fill_spool(ledger)
            environment.spool.execute(f"CREATE TEMP {REFUSE_DELETION}")
        environment.spool.disk_full = True
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
        ids.append(await ledger.record(build_facts(), build_charge()))
        assert environment.spool.waiting == 0
    assert [row.id for row in await environment.read_entries()] == ids
    assert await environment.count_charged() == len(ids)


async def test_a_full_disk_stops_the_database_too(environment: LedgerEnvironment) -> None:
    """If the database's file is on the spool's disk, the ledger stays full until the disk has space again."""
    environment.path.mkdir()
    assert environment.spool_folder().shares_disk() is (environment.engine.dialect.name == "sqlite")
    folder = replace(environment.spool_folder(), database=environment.path)
    async with environment.ledger(folder=folder) as ledger:
        async with environment.outage():
            await fill_spool(ledger)
            await wait_until_async(lambda: ledger.state is LedgerState.FULL)
            environment.spool.disk_full = True
        await wait_until_async(lambda: environment.spool.waiting == 0)
        probes = environment.spool.probes
        await wait_until_async(lambda: environment.spool.probes > probes + 2)
        assert ledger.state is LedgerState.FULL
        environment.spool.disk_full = False
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)


async def test_delivered_entries_are_not_delivered_again(environment: LedgerEnvironment) -> None:
    """Spooled entries that the database already has are neither added nor charged again."""
    async with environment.ledger() as ledger:
        async with environment.outage():
            ids = [await ledger.record(build_facts(), build_charge()) for _ in range(3)]
            texts = environment.spool.read_first(10)
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
        # As after a crash between the database's commit and the spool's.
        await asyncio.to_thread(environment.spool.append, texts)
        async with environment.outage():
            ids.append(await ledger.record(build_facts(), build_charge()))
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
    assert [row.id for row in await environment.read_entries()] == ids
    assert await environment.count_charged() == 4


async def test_a_restored_database_gets_a_new_chain(environment: LedgerEnvironment) -> None:
    """If the chain in the database is not as this process left it, a new chain begins and no later entry is lost."""
    async with environment.ledger() as ledger:
        await ledger.record(build_facts(), None)
        await environment.execute("DELETE FROM ledger_entries")
        await environment.execute("DELETE FROM ledger_payloads")
        await environment.execute("UPDATE ledger_heads SET seq = 0")
        after = [await ledger.record(build_facts(), build_charge()) for _ in range(2)]
        async with environment.outage():
            spooled = [await ledger.record(build_facts(), build_charge()) for _ in range(2)]
            await environment.execute("UPDATE ledger_heads SET seq = 1 WHERE seq = 2")
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
    async with reading(environment.engine) as connection:
        ordered = select(ledger_entries.c.id).order_by(ledger_entries.c.id)
        recorded = list((await connection.execute(ordered)).scalars())
    assert recorded == [*after, *spooled]
    assert await environment.count_charged() == 4


@pytest.mark.parametrize("later", [1, 2, 3, 5])
async def test_lost_commit_acknowledgement_hides_no_later_entry(environment: LedgerEnvironment, later: int) -> None:
    """Entries that were committed although their callers got LedgerFull do not replace later entries."""
    async with environment.ledger() as ledger:
        environment.store.fault, environment.spool.append_fails = "committed", True
        recording = (ledger.record(build_facts(), build_charge()) for _ in range(3))
        assert {type(error) for error in await asyncio.gather(*recording, return_exceptions=True)} == {LedgerFull}
        environment.store.fault, environment.spool.append_fails = "rolled back", False
        ids = sorted(await asyncio.gather(*(ledger.record(build_facts(), build_charge()) for _ in range(later))))
        assert ledger.state is LedgerState.SPOOLING
        environment.store.fault = None
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
        ids.append(await ledger.record(build_facts(), build_charge()))
    recorded = sorted(row.id for row in await environment.read_entries())
    assert recorded[3:] == ids
    assert await environment.count_charged() == 4 + later


async def test_heads_name_durable_checkpoints_only(environment: LedgerEnvironment) -> None:
    """When a checkpoint is rolled back, no head names it."""
    async with environment.ledger() as ledger:
        await ledger.record(build_facts(), None)
        environment.store.fault = "rolled back"
        with pytest.raises(LedgerUnavailable):
            await asyncio.to_thread(environment.store.write_checkpoint)
        environment.store.fault = None
        await ledger.record(build_facts(), None)
        async with reading(environment.engine) as connection:
            assert (await connection.execute(select(func.max(ledger_heads.c.checkpoint)))).scalar_one() == 1
            assert (await connection.execute(select(func.max(ledger_checkpoints.c.number)))).scalar_one() == 1


async def test_ids_continue_after_spooled_ids(environment: LedgerEnvironment) -> None:
    """A process whose clock is behind generates no id that sorts before an id in a spool."""
    async with AsyncExitStack() as outage, environment.ledger(clock=lambda: NOW + timedelta(days=30_000)) as ledger:
        await outage.enter_async_context(environment.outage())
        ids = [await ledger.record(build_facts(), build_charge())]
    async with environment.ledger() as ledger:
        ids.append(await ledger.record(build_facts(), build_charge()))
        await wait_until_async(lambda: environment.states[-1] == ("writing", 0))
    assert ids == sorted(ids)
    assert sorted(row.id for row in await environment.read_entries()) == ids


async def test_rejections_wait_for_the_database(environment: LedgerEnvironment) -> None:
    """Rejections that fit neither the database nor the spool are kept, and all written with the next prediction."""
    async with environment.ledger() as ledger:
        async with environment.outage():
            await fill_spool(ledger)
            for _ in range(2 * MAX_REFUSALS + 1):
                ledger.record_refusal(build_refusal("corrupt_image"))
            await asyncio.sleep(2 * REFUSAL_DELAY_S)  # they cannot be written
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
        before = environment.durable
        await ledger.record(build_facts(), None)
        await wait_until_async(lambda: environment.durable == before + 1 + 2 * MAX_REFUSALS + 1)
    codes = [document["code"] for document in await environment.read_documents()]
    assert codes.count("corrupt_image") == 2 * MAX_REFUSALS + 1


async def test_failed_checkpoints_are_counted_and_tried_again(
    environment: LedgerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that cannot be written is counted as a failure, and later ones are still attempted."""
    monkeypatch.setattr("monitoring.ledger.ledger.CHECKPOINT_INTERVAL_S", 0.01)
    async with environment.ledger() as ledger:
        await environment.execute("ALTER TABLE ledger_checkpoints RENAME TO hidden")
        await wait_until_async(lambda: environment.checkpoint_failures > 1)
        await environment.execute("ALTER TABLE hidden RENAME TO ledger_checkpoints")
        await ledger.record(build_facts(), None)
    async with reading(environment.engine) as connection:
        assert (await connection.execute(select(ledger_heads.c.claimed))).scalar_one() == 1


async def test_entries_delivered_after_an_erasure_are_erased(environment: LedgerEnvironment) -> None:
    """Entries that wait in a spool while their subject is erased are delivered as erased; later ones are kept."""
    now = NOW
    async with environment.ledger(clock=lambda: now) as ledger:
        environment.store.fault = "rolled back"
        for principal in ("ana", "bob"):
            await ledger.record(build_facts(principal), build_charge())
        with open_database(environment.url) as engine:
            erased_at = NOW + timedelta(seconds=1)
            assert sum(Eraser(engine, Signer(environment.key), erased_at).erase("ana")) == 0
        now += timedelta(seconds=2)
        await ledger.record(build_facts("ana"), build_charge())
        environment.store.fault = None
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
    assert [document["principal"] for document in await environment.read_documents()] == ["bob", "ana"]
    with open_database(environment.url) as engine, engine.begin() as connection:
        report = verify(read_records(connection), Verifier([Signer(environment.key).public_key]))
    assert (report.entries, report.erased, report.problems) == (3, 1, [])


async def test_entries_delivered_to_a_new_chain_are_erased(environment: LedgerEnvironment) -> None:
    """The same holds if the database has lost the chain in which the entries were linked."""
    async with environment.ledger() as ledger:
        environment.store.fault = "rolled back"
        await ledger.record(build_facts("ana"), build_charge())
        with open_database(environment.url) as engine:
            assert sum(Eraser(engine, Signer(environment.key), NOW).erase("ana")) == 0
        await environment.execute("DELETE FROM ledger_heads")
        environment.store.fault = None
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
    async with reading(environment.engine) as connection:
        assert len((await connection.execute(select(ledger_entries))).all()) == 1
    assert await environment.read_documents() == []

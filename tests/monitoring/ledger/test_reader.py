"""Reading recorded requests."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.chains.anchors import GENESIS
from monitoring.errors import LedgerUnavailable, PredictionNotFound
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft, EntryWithPayload
from monitoring.ledger.reader import LedgerReader
from monitoring.ledger.tables import ledger_entries, ledger_payloads, ledger_stumps
from storage.transactions import writing

WRITERS = ("01a2073c-0000-7000-8000-00000000000a", "01a2073c-0000-7000-8000-00000000000b")


@pytest.fixture
def reader(engine: AsyncEngine) -> LedgerReader:
    return LedgerReader(engine)


@pytest.fixture
async def recorded(engine: AsyncEngine) -> list[EntryWithPayload]:
    """Twelve entries of two users, written alternately by two writers, in order of their ids."""
    chains = [Chain(writer) for writer in WRITERS]
    all_items = []
    for number in range(12):
        chain = chains[number % 2]
        items = chain.link([_build_draft(number, "ana" if number % 3 else "bob")])
        chain.advance(items)
        all_items += items
    async with writing(engine) as connection:
        await connection.execute(insert(ledger_entries), [_to_entry_row(item) for item in all_items])
        await connection.execute(insert(ledger_payloads), [_to_payload_row(item) for item in all_items])
    return all_items


def _build_draft(number: int, principal: str) -> EntryDraft:
    always = {"model": None, "status": 415, "code": "unsupported_image"}
    return EntryDraft(f"01a2073c-0000-7000-8000-0000000001{number:02x}", "at", {"principal": principal, **always})


def _to_entry_row(item: EntryWithPayload) -> dict[str, Any]:
    entry = item.entry
    return {name: getattr(entry, name) for name in ("writer", "seq", "id", "at", "commitment", "hash")}


def _to_payload_row(item: EntryWithPayload) -> dict[str, Any]:
    named = {name: getattr(item.payload, name) for name in ("principal", "model", "status", "salt", "document")}
    return {"writer": item.entry.writer, "seq": item.entry.seq, "id": item.entry.id, **named}


async def test_a_request_is_found_as_it_was_recorded(reader: LedgerReader, recorded: list[EntryWithPayload]) -> None:
    """Without a principal, any request is found with its entry and payload."""
    for item in recorded:
        found = await reader.find(item.entry.id)
        assert (found.entry, found.payload) == (item.entry, item.payload)
        assert found.read_facts()["principal"] == item.payload.principal


async def test_a_principal_finds_only_its_own_requests(reader: LedgerReader, recorded: list[EntryWithPayload]) -> None:
    """Another principal's request is not found, like one that does not exist."""
    assert (await reader.find(recorded[1].entry.id, "ana")).entry == recorded[1].entry
    for wanted, principal in ((recorded[0].entry.id, "ana"), ("no such id", "ana"), (recorded[1].entry.id, "ANA")):
        with pytest.raises(PredictionNotFound):
            await reader.find(wanted, principal)


async def test_pages_cover_all_writers(reader: LedgerReader, recorded: list[EntryWithPayload]) -> None:
    """Pages of any size list each of a principal's requests once, newest first, across all writers."""
    own = [item.entry.id for item in reversed(recorded) if item.payload.principal == "ana"]
    for size in (1, 3, 100):
        seen: list[str] = []
        while page := await reader.list_newest("ana", size, seen[-1] if seen else None):
            assert len(page) <= size
            seen += [found.entry.id for found in page]
        assert seen == own


async def test_erased_requests_are_not_found(
    engine: AsyncEngine, reader: LedgerReader, recorded: list[EntryWithPayload]
) -> None:
    """An entry whose payload was deleted is not found."""
    gone = recorded[1].entry
    async with writing(engine) as connection:
        await connection.execute(ledger_payloads.delete().where(ledger_payloads.c.id == gone.id))
    with pytest.raises(PredictionNotFound):
        await reader.find(gone.id)
    assert gone.id not in [found.entry.id for found in await reader.list_newest("ana", 100)]


async def test_the_previous_hash_is_found(
    engine: AsyncEngine, reader: LedgerReader, recorded: list[EntryWithPayload]
) -> None:
    """The previous hash of an entry is its predecessor's, or a stump's after pruning; the first has GENESIS."""
    for item in recorded:
        previous = await reader.find_previous_hash(item.entry)
        assert previous is not None
        assert item.entry.hash == item.entry.compute_hash(previous)
    assert await reader.find_previous_hash(recorded[0].entry) == GENESIS
    first, second = recorded[0].entry, recorded[2].entry
    async with writing(engine) as connection:
        await connection.execute(ledger_entries.delete().where(ledger_entries.c.id == first.id))
    assert await reader.find_previous_hash(second) is None
    stump = {"writer": first.writer, "seq": first.seq, "hash": first.hash, "at": "at", "key": "", "signature": ""}
    async with writing(engine) as connection:
        await connection.execute(insert(ledger_stumps), [stump])
    assert await reader.find_previous_hash(second) == first.hash


async def test_an_unreadable_table_is_reported(engine: AsyncEngine, reader: LedgerReader) -> None:
    """Database errors raise LedgerUnavailable."""
    async with writing(engine) as connection:
        await connection.execute(text("ALTER TABLE ledger_payloads RENAME TO away"))
    with pytest.raises(LedgerUnavailable):
        await reader.list_newest("ana", 1)
    with pytest.raises(LedgerUnavailable):
        await reader.find("x")

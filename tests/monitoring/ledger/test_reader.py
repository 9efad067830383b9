from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.errors import LedgerUnavailable, PredictionNotFound
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import GENESIS, Draft, Link
from monitoring.ledger.reader import LedgerReader
from monitoring.ledger.tables import ledger_entries, ledger_payloads, ledger_stumps
from storage.transactions import writing

WRITERS = ("01a2073c-0000-7000-8000-00000000000a", "01a2073c-0000-7000-8000-00000000000b")


@pytest.fixture
def reader(engine: AsyncEngine) -> LedgerReader:
    return LedgerReader(engine)


@pytest.fixture
async def links(engine: AsyncEngine) -> list[Link]:
    """Twelve entries of two users, by two writers in turn, in the order of their ids."""
    chains = [Chain(writer) for writer in WRITERS]
    made = []
    for number in range(12):
        chain = chains[number % 2]
        linked = chain.links([_draft(number, "ana" if number % 3 else "bob")])
        chain.advance(linked)
        made += linked
    async with writing(engine) as connection:
        await connection.execute(insert(ledger_entries), [_entry(link) for link in made])
        await connection.execute(insert(ledger_payloads), [_payload(link) for link in made])
    return made


def _draft(number: int, principal: str) -> Draft:
    always = {"model": None, "status": 415, "code": "unsupported_image"}
    return Draft(f"01a2073c-0000-7000-8000-0000000001{number:02x}", "at", {"principal": principal, **always})


def _entry(link: Link) -> dict[str, Any]:
    entry = link.entry
    return {name: getattr(entry, name) for name in ("writer", "seq", "id", "at", "commitment", "hash")}


def _payload(link: Link) -> dict[str, Any]:
    named = {name: getattr(link.payload, name) for name in ("principal", "model", "status", "salt", "document")}
    return {"writer": link.entry.writer, "seq": link.entry.seq, "id": link.entry.id, **named}


async def test_one_is_found_as_it_was_written(reader: LedgerReader, links: list[Link]) -> None:
    """A prediction comes back with its entry and the payload that this commits to, to whoever may see all."""
    for link in links:
        past = await reader.find(link.entry.id)
        assert (past.entry, past.payload) == (link.entry, link.payload)
        assert past.facts["principal"] == link.payload.principal


async def test_an_owner_finds_only_ones_own(reader: LedgerReader, links: list[Link]) -> None:
    """Another's and one that never was are not told apart."""
    assert (await reader.find(links[1].entry.id, "ana")).entry == links[1].entry
    for wanted, principal in ((links[0].entry.id, "ana"), ("no such id", "ana"), (links[1].entry.id, "ANA")):
        with pytest.raises(PredictionNotFound):
            await reader.find(wanted, principal)


async def test_pages_go_through_all_writers(reader: LedgerReader, links: list[Link]) -> None:
    """Newest first over the chains of all writers, each of the owner's once, whatever size a page has."""
    own = [link.entry.id for link in reversed(links) if link.payload.principal == "ana"]
    for size in (1, 3, 100):
        seen: list[str] = []
        while page := await reader.newest("ana", size, seen[-1] if seen else None):
            assert len(page) <= size
            seen += [past.entry.id for past in page]
        assert seen == own


async def test_what_was_erased_is_not_found(engine: AsyncEngine, reader: LedgerReader, links: list[Link]) -> None:
    """An entry without its payload is nobody's."""
    gone = links[1].entry
    async with writing(engine) as connection:
        await connection.execute(ledger_payloads.delete().where(ledger_payloads.c.id == gone.id))
    with pytest.raises(PredictionNotFound):
        await reader.find(gone.id)
    assert gone.id not in [past.entry.id for past in await reader.newest("ana", 100)]


async def test_the_hash_before_is_the_predecessors_or_a_stumps(
    engine: AsyncEngine, reader: LedgerReader, links: list[Link]
) -> None:
    """Each entry follows the one before it in its own chain, the first nothing, and after pruning a stump."""
    for link in links:
        previous = await reader.hash_before(link.entry)
        assert previous is not None
        assert link.entry.hash == link.entry.computed_hash(previous)
    assert await reader.hash_before(links[0].entry) == GENESIS
    first, second = links[0].entry, links[2].entry
    async with writing(engine) as connection:
        await connection.execute(ledger_entries.delete().where(ledger_entries.c.id == first.id))
    assert await reader.hash_before(second) is None
    stump = {"writer": first.writer, "seq": first.seq, "hash": first.hash, "at": "at", "key": "", "signature": ""}
    async with writing(engine) as connection:
        await connection.execute(insert(ledger_stumps), [stump])
    assert await reader.hash_before(second) == first.hash


async def test_tables_that_cannot_be_read_are_unavailable(engine: AsyncEngine, reader: LedgerReader) -> None:
    """A database that fails is LedgerUnavailable, not an empty list."""
    async with writing(engine) as connection:
        await connection.execute(text("ALTER TABLE ledger_payloads RENAME TO away"))
    with pytest.raises(LedgerUnavailable):
        await reader.newest("ana", 1)
    with pytest.raises(LedgerUnavailable):
        await reader.find("x")

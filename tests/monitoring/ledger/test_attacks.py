"""Attacks on the ledger by someone with write access to the database but without the private key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import asdict
from sqlalchemy import Connection, delete, insert, select, text, update

from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import LedgerDamaged
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft, EntryWithPayload
from monitoring.ledger.records import EntryRecord, Record, StreamHeader, read_checkpoints
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads, ledger_payloads, ledger_stumps
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from monitoring.ledger.verification.stream import verify
from monitoring.ledger.writing.store import LedgerStore
from tests.monitoring.ledger.environment import build_facts
from tests.monitoring.ledger.ledgers import (
    KEY,
    LONG_AGO,
    NOW,
    fill_ledger,
    open_database,
    verify_database,
    verify_intact,
)

WRITTEN_LONG_AGO = format_timestamp(LONG_AGO)


def change_rows(url: str, *statements: Any) -> None:
    with open_database(url) as engine, engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement) if isinstance(statement, str) else statement)


def forge_entries(chain: Chain, count: int) -> list[EntryWithPayload]:
    ids = MonotonicIds()
    return chain.link([EntryDraft(ids.new(), format_timestamp(NOW), build_facts("ana")) for _ in range(count)])


def insert_entries(connection: Connection, linked: list[EntryWithPayload]) -> None:
    for item in linked:
        key = {"writer": item.entry.writer, "seq": item.entry.seq, "id": item.entry.id}
        connection.execute(insert(ledger_entries).values(**asdict(item.entry)))
        connection.execute(insert(ledger_payloads).values(**key, **asdict(item.payload)))


def test_a_chain_cut_back_is_found(url: str) -> None:
    """Verification finds a chain that was cut back to an older signed head: a checkpoint names a missing entry."""
    chain = fill_ledger(url, 3, NOW)
    with open_database(url) as engine, engine.begin() as connection:
        (head,) = connection.execute(select(ledger_heads)).mappings().all()
        kept = dict(head)
    fill_ledger(url, 7, NOW + timedelta(seconds=1), chain=chain)
    fill_ledger(url, 4, NOW)
    anchor = verify_intact(url).anchor
    later = [delete(table).where(table.c.writer == chain.writer, table.c.seq > 3) for table in BOTH_TABLES]
    change_rows(
        url, *later, update(ledger_heads).where(ledger_heads.c.writer == chain.writer).values(**kept | {"claimed": 2})
    )
    fill_ledger(url, 1, NOW)
    for noted in (None, anchor):
        problem = verify_database(url, noted).problems[0]
        assert problem == f"Entry 10 of {chain.writer}, which a checkpoint names, is missing."


BOTH_TABLES = (ledger_entries, ledger_payloads)


def test_rows_outside_of_the_valid_range_are_found(url: str) -> None:
    """Rows with an empty writer, and entries and checkpoints with numbers below 1, are reported."""
    chain = fill_ledger(url, 3, NOW)
    with open_database(url) as engine, engine.begin() as connection:
        insert_entries(connection, forge_entries(Chain(""), 1))
    assert any("The chain of  " in problem for problem in verify_database(url).problems)
    change_rows(url, *(delete(table).where(table.c.writer == "") for table in BOTH_TABLES))
    with open_database(url) as engine, engine.begin() as connection:
        insert_entries(connection, forge_entries(Chain(chain.writer, -8, "a" * 64), 2))
    assert any("entry -7" in problem for problem in verify_database(url).problems)
    change_rows(url, *(delete(table).where(table.c.seq < 1) for table in BOTH_TABLES))
    nothing = dict.fromkeys(("at", "heads", "previous", "hash", "key", "signature"), "x")
    change_rows(url, insert(ledger_checkpoints).values(number=0, **nothing))
    assert "Checkpoint 0 comes after checkpoint 0." in verify_database(url).problems
    change_rows(url, delete(ledger_checkpoints).where(ledger_checkpoints.c.number == 0))
    assert verify_intact(url).entries == 3


def test_no_checkpoint_names_an_unsigned_head(url: str) -> None:
    """No checkpoint names a head without a valid signature, so an export of a forged chain does not verify."""
    fill_ledger(url, 3, NOW)
    forged = Chain(MonotonicIds().new())
    linked = forge_entries(forged, 2)
    last = linked[-1].entry
    head = {"writer": forged.writer, "seq": 2, "hash": last.hash, "checkpoint": 1, "claimed": -1}
    change_rows(url, insert(ledger_heads).values(**head, key=Signer(KEY).key_id, signature="x"))
    fill_ledger(url, 1, NOW)
    with open_database(url) as engine, engine.begin() as connection:
        checkpoints = list(read_checkpoints(connection))
    assert not any(forged.writer in checkpoint.heads for checkpoint in checkpoints)
    window: list[Record] = [
        StreamHeader(since="2020", until="2030"),
        *checkpoints,
        *(EntryRecord(item.entry, item.payload, None) for item in linked),
    ]
    (problem,) = verify(window, Verifier([Signer(KEY).public_key])).problems
    assert "has no signed end" in problem


def prune(url: str, before: datetime = NOW - timedelta(days=30), keys: tuple[str, ...] = ()) -> int:
    with open_database(url) as engine:
        return sum(Pruner(engine, Signer(KEY), NOW, keys).prune(before))


def test_pruning_keeps_changed_entries(url: str) -> None:
    """Pruning keeps entries that were changed to look old and names the first; it prunes old ones of other chains."""
    fill_ledger(url, 2, LONG_AGO)
    chain = fill_ledger(url, 10, NOW)
    changed = update(ledger_entries).where(ledger_entries.c.writer == chain.writer, ledger_entries.c.seq <= 7)
    change_rows(url, changed.values(at=WRITTEN_LONG_AGO))
    with pytest.raises(LedgerDamaged, match=f"Entry 1 of {chain.writer} was changed, so it was kept"):
        prune(url)
    report = verify_database(url)
    assert report.entries == 10
    assert f"Entry 1 of {chain.writer}" in report.problems[0]


def test_pruning_keeps_changed_checkpoints(url: str) -> None:
    """Pruning keeps checkpoints that were changed to look old: without them a chain could be removed unnoticed."""
    for _ in range(3):
        fill_ledger(url, 5, NOW)
    changed = update(ledger_checkpoints).values(at=WRITTEN_LONG_AGO)
    change_rows(url, changed, update(ledger_heads).values(claimed=-5))
    with pytest.raises(LedgerDamaged, match="Checkpoint 1, or the one before it, was changed"):
        prune(url)
    with open_database(url) as engine, engine.begin() as connection:
        assert len(list(read_checkpoints(connection))) == 6


def test_pruning_ignores_the_unsigned_claims_of_heads(url: str) -> None:
    """The last checkpoint that names an entry is kept with it, whatever the head's unsigned `claimed` says."""
    chain = fill_ledger(url, 5, LONG_AGO)
    fill_ledger(url, 5, LONG_AGO)
    first = update(ledger_entries).where(ledger_entries.c.writer == chain.writer, ledger_entries.c.seq == 1)
    older = format_timestamp(LONG_AGO - timedelta(days=1))
    change_rows(url, first.values(at=older), update(ledger_heads).values(claimed=0))
    with pytest.raises(LedgerDamaged, match=f"Entry 1 of {chain.writer}"):
        prune(url)
    with open_database(url) as engine, engine.begin() as connection:
        assert [checkpoint.number for checkpoint in read_checkpoints(connection)] == [2, 3, 4]


def test_pruning_rejects_stumps_of_unknown_keys(url: str) -> None:
    """A stump that no known key has signed does not justify missing entries: pruning raises LedgerDamaged."""
    chain = fill_ledger(url, 4, LONG_AGO)
    fill_ledger(url, 4, LONG_AGO)
    assert prune(url, LONG_AGO + timedelta(seconds=1)) == 8
    fill_ledger(url, 4, LONG_AGO, chain=chain)
    change_rows(url, update(ledger_stumps).where(ledger_stumps.c.writer == chain.writer).values(key="0" * 16))
    with pytest.raises(LedgerDamaged, match=f"The stump of {chain.writer} is not signed by a known key"):
        prune(url)


def test_pruning_accepts_earlier_keys(url: str) -> None:
    """Checkpoints that were signed with an earlier key are pruned only if its public key is given."""
    fill_ledger(url, 4, LONG_AGO)
    fill_ledger(url, 1, NOW)
    with open_database(url) as engine:
        newer = Signer(new_private_key())
        with pytest.raises(LedgerDamaged, match=r"Checkpoint 1 is not signed by a known key \(--public-key"):
            list(Pruner(engine, newer, NOW).prune(NOW - timedelta(days=30)))
        assert verify_database(url).checkpoints == 4
        assert list(Pruner(engine, newer, NOW, [Signer(KEY).public_key]).prune(NOW - timedelta(days=30))) == []
        with engine.begin() as connection:
            assert [checkpoint.number for checkpoint in read_checkpoints(connection)] == [3, 4]


def test_erasing_keeps_payloads_moved_to_another_name(url: str) -> None:
    """Payloads that were assigned to another principal are not erased with that principal's own."""
    chain = fill_ledger(url, 6, NOW, "ana mallory")
    change_rows(url, update(ledger_payloads).where(ledger_payloads.c.principal == "ana").values(principal="mallory"))
    with open_database(url) as engine:
        chunks = Eraser(engine, Signer(KEY), NOW).erase("mallory")
        assert next(chunks) == 3
        with pytest.raises(LedgerDamaged, match=f"The payload of entry 1 of {chain.writer} was changed"):
            next(chunks)
    report = verify_database(url)
    assert (report.erased, len(report.problems)) == (3, 3)


def test_erasing_finds_payloads_by_principal(url: str) -> None:
    """A payload whose id was removed is erased like the others."""
    fill_ledger(url, 6, NOW, "ana mallory")
    change_rows(url, update(ledger_payloads).where(ledger_payloads.c.seq == 1).values(id=""))
    with open_database(url) as engine:
        assert sum(Eraser(engine, Signer(KEY), NOW).erase("ana")) == 3


def test_pruning_keeps_a_chain_without_a_head(url: str) -> None:
    """Pruning keeps and names a chain whose head is missing, because nothing signed shows where it ends."""
    chain = fill_ledger(url, 3, LONG_AGO)
    change_rows(url, delete(ledger_heads).where(ledger_heads.c.writer == chain.writer))
    with pytest.raises(LedgerDamaged, match=f"The head of {chain.writer} is missing"):
        prune(url)
    assert verify_database(url).entries == 3


def test_checkpoints_name_signed_heads(url: str) -> None:
    """A checkpoint names every validly signed head that no earlier one has named."""
    with open_database(url) as engine:
        store, chain = LedgerStore(engine, Signer(KEY), lambda: NOW), Chain(MonotonicIds().new())
        store.open_chain(chain.writer)
        linked = forge_entries(chain, 2)
        with store.batch_transaction() as connection:
            store.append(connection, linked, chain)
        store.close()
    fill_ledger(url, 1, NOW)
    assert verify_intact(url).checkpoints == 3


def test_a_payload_that_was_put_back_is_erased_again(url: str) -> None:
    """A payload that somebody copied back after its erasure is erased like any other, and the chain verifies."""
    fill_ledger(url, 2, NOW)
    change_rows(url, "CREATE TABLE copies AS SELECT * FROM ledger_payloads WHERE principal = 'ana'")
    with open_database(url) as engine:
        eraser = Eraser(engine, Signer(KEY), NOW)
        assert sum(eraser.erase("ana")) == 1
        change_rows(url, "INSERT INTO ledger_payloads SELECT * FROM copies", "DROP TABLE copies")
        assert sum(eraser.erase("ana")) == 1
        assert eraser.count("ana") == 0
    assert verify_intact(url).erased == 1

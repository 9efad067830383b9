"""Verifying a ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import fields, replace
from sqlalchemy import Connection, create_engine, text

from monitoring.chains.anchors import GENESIS, Anchor
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer, new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Checkpoint, EntryDraft, Head, Stump
from monitoring.ledger.records import EntryRecord, Record, read_records
from monitoring.ledger.tables import metadata
from monitoring.ledger.writing.store import LedgerStore

Verify = Callable[..., Any]
Records = Sequence[Record]


def describe(record: EntryRecord) -> str:
    return f"{record.entry.seq} of {record.entry.writer} ({record.entry.id})"


def get_writer(record: Record) -> str:
    return str(getattr(record.entry if isinstance(record, EntryRecord) else record, "writer", ""))


def test_an_unchanged_ledger_verifies(small_ledger: Records, verify_records: Verify) -> None:
    """Chains, erasures, stumps and checkpoints verify together; the anchor is the newest checkpoint."""
    report = verify_records(small_ledger)
    assert report.problems == []
    assert (report.writers, report.entries, report.erased, report.withheld) == (3, 19, 8, 0)
    assert verify_records(small_ledger, report.anchor).problems == []


def test_a_pruned_anchor_is_reported(small_ledger: Records, verify_records: Verify) -> None:
    """An anchor that was pruned since it was noted is reported as too old."""
    stump = small_ledger[1]
    assert isinstance(stump, Stump)
    assert verify_records(small_ledger, Anchor(stump.seq, stump.hash)).problems == []
    problem = f"The anchor, checkpoint {stump.seq - 1}, was pruned: give a newer one."
    assert verify_records(small_ledger, Anchor(stump.seq - 1, GENESIS)).problems == [problem]
    assert "or was replaced" in verify_records(small_ledger, Anchor(stump.seq, GENESIS)).problems[0]


def test_either_database_verifies(small_database: Connection, verify_records: Verify) -> None:
    """A ledger in a SQLite or PostgreSQL database verifies."""
    report = verify_records(tuple(read_records(small_database)))
    assert (report.problems, report.writers, report.entries, report.erased) == ([], 3, 19, 8)


@given(st.data())
def test_a_changed_field_is_found(small_ledger: Records, verify_records: Verify, data: st.DataObject) -> None:
    """A change of any field of any record to any value is found, and a changed entry is named."""
    records = list(small_ledger)
    index = data.draw(st.integers(1, len(records) - 1))
    record = records[index]
    where = ""
    if isinstance(record, EntryRecord):
        where = data.draw(st.sampled_from([field.name for field in fields(record) if getattr(record, field.name)]))
    part: Any = getattr(record, where) if where else record
    name = data.draw(st.sampled_from([field.name for field in fields(part)]))
    old = getattr(part, name)
    new = data.draw(st.integers(0, 50) if isinstance(old, int) else st.text() | st.just(old[:-1]) | st.just(old + "0"))
    assume(new != old)
    changed = replace(part, **{name: new})
    records[index] = replace(record, **{where: changed}) if where else changed
    problems = verify_records(records).problems
    assert problems
    if isinstance(record, EntryRecord) and (where != "entry" or name in ("at", "commitment", "hash")):
        assert describe(record) in problems[0]


@given(st.data())
def test_a_missing_record_is_found(small_ledger: Records, verify_records: Verify, data: st.DataObject) -> None:
    """The removal of any record, or of up to eight adjacent ones, is found."""
    first = data.draw(st.integers(1, len(small_ledger) - 1))
    last = data.draw(st.integers(first + 1, min(len(small_ledger), first + 8)))
    problems = verify_records([*small_ledger[:first], *small_ledger[last:]]).problems
    assert problems
    gone = small_ledger[first]
    after = small_ledger[last] if last < len(small_ledger) else None
    if (
        isinstance(gone, EntryRecord)
        and isinstance(after, EntryRecord | Head)
        and get_writer(after) == gone.entry.writer
    ):
        assert problems[0].startswith(f"Entry {gone.entry.seq} of {gone.entry.writer} is missing")


def test_a_missing_chain_is_found(small_ledger: Records, verify_records: Verify) -> None:
    """The removal of a chain with its stump and head is found, because a checkpoint names it."""
    for writer in {get_writer(record) for record in small_ledger if isinstance(record, EntryRecord)}:
        problems = verify_records([record for record in small_ledger if get_writer(record) != writer]).problems
        assert any(f"of {writer}, which a checkpoint names, is missing" in problem for problem in problems)


@given(st.data())
def test_reordered_records_are_found(small_ledger: Records, verify_records: Verify, data: st.DataObject) -> None:
    """Verification finds two swapped records."""
    records = list(small_ledger)
    one, two = sorted(data.draw(st.lists(st.integers(1, len(records) - 1), min_size=2, max_size=2, unique=True)))
    records[one], records[two] = records[two], records[one]
    assert verify_records(records).problems


@given(st.data())
def test_a_repeated_record_is_found(small_ledger: Records, verify_records: Verify, data: st.DataObject) -> None:
    """A repeated record is found wherever its copy is."""
    records = list(small_ledger)
    copy = records[data.draw(st.integers(1, len(records) - 1))]
    records.insert(data.draw(st.integers(1, len(records))), copy)
    assert verify_records(records).problems


def test_missing_checkpoints_are_found(small_ledger: Records, verify_records: Verify) -> None:
    """Missing checkpoints are found, whether or not a head names one."""
    records = [record for record in small_ledger if not isinstance(record, Checkpoint)]
    assert any("there are no checkpoints" in problem for problem in verify_records(records).problems)
    assert "Checkpoint 5 is missing: there are no checkpoints." in verify_records(small_ledger[:2]).problems


def forge_entry(after: EntryRecord | None, writer: str) -> EntryRecord:
    """Build the next entry of a chain, for which no key is needed."""
    moment = format_timestamp(datetime(2026, 11, 24, tzinfo=UTC))
    facts = {"principal": "ana", "status": 200, "model": None}
    chain = Chain(writer)
    if after is not None:
        chain.seq, chain.hash = after.entry.seq, after.entry.hash
    (linked,) = chain.link([EntryDraft(MonotonicIds().new(), moment, facts)])
    return EntryRecord(linked.entry, linked.payload, None)


def test_an_added_entry_is_found(small_ledger: Records, verify_records: Verify) -> None:
    """An entry added at the end of a chain with correct hashes is named, and so is an added chain."""
    for index, record in enumerate(small_ledger):
        before = small_ledger[index - 1]
        if isinstance(record, Head) and isinstance(before, EntryRecord):
            forged = forge_entry(before, record.writer)
            problems = verify_records([*small_ledger[:index], forged, *small_ledger[index:]]).problems
            assert problems == [
                f"Entry {record.seq + 1} of {record.writer} was added: its chain ends with {record.seq}."
            ]
            problems = verify_records([*small_ledger[: index + 1], forged, *small_ledger[index + 1 :]]).problems
            assert f"Entry {describe(forged)} was added after the head of its chain." in problems
    stranger = forge_entry(None, "ffffffff-0000-7000-8000-000000000000")
    assert "has no signed end" in verify_records([*small_ledger, stranger]).problems[0]


def test_a_recomputed_chain_is_found(small_ledger: Records, verify_records: Verify) -> None:
    """A chain whose hashes were all recomputed is found, because its head and checkpoints cannot be signed again."""
    records: list[Record] = []
    first = next(record for record in small_ledger if isinstance(record, EntryRecord))
    assert first.payload is not None
    document = first.payload.document.replace('"status":200', '"status":201')
    forged = replace(first.payload, document=document, status=201)
    previous = GENESIS
    for record in small_ledger:
        changed = record
        if isinstance(record, EntryRecord) and record.entry.writer == first.entry.writer:
            if record is first:
                changed = EntryRecord(replace(first.entry, commitment=forged.compute_commitment()), forged, None)
            assert isinstance(changed, EntryRecord)
            previous = changed.entry.compute_hash(previous)
            changed = replace(changed, entry=replace(changed.entry, hash=previous))
        records.append(changed)
    problems = verify_records(records).problems
    assert any("is not the one that a checkpoint names" in problem for problem in problems)
    assert any("the head names another hash" in problem for problem in problems)


def test_an_unknown_key_is_named(small_ledger: Records, verify_records: Verify) -> None:
    """A signature by an unknown key is reported, with the advice to give its public key."""
    problems = verify_records(small_ledger, key=new_private_key()).problems
    key = next(record.key for record in small_ledger if isinstance(record, Checkpoint))
    assert f"signed by the unknown key {key}. Give its public key." in problems[0]


def test_an_anchor_exposes_a_restored_copy(verify_records: Verify) -> None:
    """A restored older copy of the ledger verifies; only an anchor exposes it."""
    key, ids, engine = new_private_key(), MonotonicIds(), create_engine("sqlite://")
    metadata.create_all(engine)

    def records() -> Records:
        with engine.begin() as connection:
            return tuple(read_records(connection))

    store, chain = LedgerStore(engine, Signer(key)), Chain(ids.new())
    store.open_chain(chain.writer)
    older = records()
    with store.batch_transaction() as connection:
        store.append(connection, chain.link([EntryDraft(ids.new(), format_timestamp(datetime.now(UTC)), FACTS)]), chain)
    store.write_checkpoint()
    anchor = verify_records(records(), key=key).anchor
    store.close()
    assert verify_records(older, key=key).problems == []
    assert "The anchor, checkpoint 2, is missing" in verify_records(older, anchor, key).problems[0]


FACTS = {"principal": "ana", "status": 200, "model": None}


def test_orphans_are_found(small_database: Connection, verify_records: Verify) -> None:
    """Payloads and erasures in the database that belong to no entry are named."""
    writer = next(record.entry.writer for record in read_records(small_database) if isinstance(record, EntryRecord))
    small_database.execute(
        text("INSERT INTO ledger_erasures VALUES (:writer, 99, '2026', 'k', 's')"), {"writer": writer}
    )
    small_database.execute(text("INSERT INTO ledger_payloads VALUES ('stranger', 1, 'i', 'p', 'm', 200, 's', 'd')"))
    problems = verify_records(tuple(read_records(small_database))).problems
    assert f"A row (erasure) belongs to no entry: number 99 of {writer}." in problems
    assert "A row (payload) belongs to no entry: number 1 of stranger." in problems


def test_a_payload_under_another_id_is_named(small_database: Connection, verify_records: Verify) -> None:
    """A payload whose id differs from its entry's is an orphan, and the entry lacks a payload."""
    small_database.execute(text("UPDATE ledger_payloads SET id = 'other' WHERE seq = 5"))
    problems = verify_records(tuple(read_records(small_database))).problems
    assert any("The payload of entry 5" in problem for problem in problems)
    assert any("A row (payload) belongs to no entry: number 5" in problem for problem in problems)


def test_the_claims_of_heads_are_verified(small_database: Connection, verify_records: Verify) -> None:
    """A head whose `claimed` contradicts the checkpoints, so that none would name it again, is found."""
    small_database.execute(text("UPDATE ledger_heads SET claimed = claimed + 99"))
    problems = verify_records(tuple(read_records(small_database))).problems
    assert len([problem for problem in problems if "the checkpoints disagree" in problem]) == 3

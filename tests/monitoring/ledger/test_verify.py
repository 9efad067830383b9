"""Whether a change to a ledger is found, whatever it is, and whether an unchanged one is found good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, text

from monitoring.chains.signing import Signer, new_private_key
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import GENESIS, Checkpoint, Draft, Head, Stump, written_time
from monitoring.ledger.identity import Ids
from monitoring.ledger.records import Line, Record, records_in
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import metadata
from monitoring.ledger.verify import Anchor

Check = Callable[..., Any]
Records = Sequence[Record]


def name_of(line: Line) -> str:
    return f"{line.entry.seq} of {line.entry.writer} ({line.entry.id})"


def writer_of(record: Record) -> str:
    return str(getattr(record.entry if isinstance(record, Line) else record, "writer", ""))


def test_an_unchanged_ledger_is_found_good(small_ledger: Records, check: Check) -> None:
    """Chains, erasures, stumps and checkpoints verify together; the anchor is the newest checkpoint."""
    finding = check(small_ledger)
    assert finding.problems == []
    assert (finding.writers, finding.entries, finding.erased, finding.withheld) == (3, 19, 8, 0)
    assert check(small_ledger, finding.anchor).problems == []


def test_an_anchor_can_be_too_old(small_ledger: Records, check: Check) -> None:
    """A checkpoint that was pruned since it was noted proves nothing any more, and the sentence says so."""
    stump = small_ledger[1]
    assert isinstance(stump, Stump)
    assert check(small_ledger, Anchor(stump.seq, stump.hash)).problems == []
    told = f"Checkpoint {stump.seq - 1}, which was noted earlier, was pruned: give a newer one."
    assert check(small_ledger, Anchor(stump.seq - 1, GENESIS)).problems == [told]
    assert "or is another" in check(small_ledger, Anchor(stump.seq, GENESIS)).problems[0]


def test_either_database_verifies(at_rest: Connection, check: Check) -> None:
    """The same ledger is found good in both databases."""
    finding = check(tuple(records_in(at_rest)))
    assert (finding.problems, finding.writers, finding.entries, finding.erased) == ([], 3, 19, 8)


@given(st.data())
def test_a_changed_field_is_found(small_ledger: Records, check: Check, data: st.DataObject) -> None:
    """Whichever field of whichever record is changed, and to whatever, it is found, and an entry is named."""
    records = list(small_ledger)
    place = data.draw(st.integers(1, len(records) - 1))
    record = records[place]
    where = ""
    if isinstance(record, Line):
        where = data.draw(st.sampled_from([field.name for field in fields(record) if getattr(record, field.name)]))
    part: Any = getattr(record, where) if where else record
    name = data.draw(st.sampled_from([field.name for field in fields(part)]))
    old = getattr(part, name)
    new = data.draw(st.integers(0, 50) if isinstance(old, int) else st.text() | st.just(old[:-1]) | st.just(old + "0"))
    if new == old:
        return
    changed = replace(part, **{name: new})
    records[place] = replace(record, **{where: changed}) if where else changed
    problems = check(records).problems
    assert problems
    if isinstance(record, Line) and (where != "entry" or name in ("at", "commitment", "hash")):
        assert name_of(record) in problems[0]


@given(st.data())
def test_a_missing_record_is_found(small_ledger: Records, check: Check, data: st.DataObject) -> None:
    """No record can be taken out, nor any number of neighbours, wherever they are."""
    first = data.draw(st.integers(1, len(small_ledger) - 1))
    last = data.draw(st.integers(first + 1, min(len(small_ledger), first + 8)))
    problems = check(small_ledger[:first] + small_ledger[last:]).problems
    assert problems
    gone = small_ledger[first]
    after = small_ledger[last] if last < len(small_ledger) else None
    if isinstance(gone, Line) and isinstance(after, Line | Head) and writer_of(after) == gone.entry.writer:
        assert problems[0].startswith(f"Entry {gone.entry.seq} of {gone.entry.writer} is missing")


def test_a_missing_chain_is_found(small_ledger: Records, check: Check) -> None:
    """A chain that is gone with its stump and its head is missed: a checkpoint has named it."""
    for writer in {writer_of(record) for record in small_ledger if isinstance(record, Line)}:
        problems = check([record for record in small_ledger if writer_of(record) != writer]).problems
        assert any(f"of {writer}, which a checkpoint names, is missing" in problem for problem in problems)


@given(st.data())
def test_reordered_records_are_found(small_ledger: Records, check: Check, data: st.DataObject) -> None:
    """Two records that change places are found."""
    records = list(small_ledger)
    one, two = sorted(data.draw(st.lists(st.integers(1, len(records) - 1), min_size=2, max_size=2, unique=True)))
    records[one], records[two] = records[two], records[one]
    assert check(records).problems


@given(st.data())
def test_a_repeated_record_is_found(small_ledger: Records, check: Check, data: st.DataObject) -> None:
    """A record that is there twice, wherever its copy stands, is found."""
    records = list(small_ledger)
    copy = records[data.draw(st.integers(1, len(records) - 1))]
    records.insert(data.draw(st.integers(1, len(records))), copy)
    assert check(records).problems


def test_missing_checkpoints_are_found(small_ledger: Records, check: Check) -> None:
    """There is no ledger without a checkpoint, whether or not any head has seen one."""
    records = [record for record in small_ledger if not isinstance(record, Checkpoint)]
    assert any("there is none at all" in problem for problem in check(records).problems)
    assert "Checkpoint 5 is missing: there is none at all." in check(small_ledger[:2]).problems


def added(after: Line | None, writer: str) -> Line:
    """An entry that follows, as whoever has no key can make it."""
    moment = written_time(datetime(2026, 11, 24, tzinfo=UTC))
    facts = {"principal": "ana", "status": 200, "model": None}
    chain = Chain(writer)
    if after is not None:
        chain.seq, chain.hash = after.entry.seq, after.entry.hash
    (link,) = chain.links([Draft(Ids().new(), moment, facts)])
    return Line(link.entry, link.payload, None)


def test_an_added_entry_is_found(small_ledger: Records, check: Check) -> None:
    """What is put at the end of a chain, with every hash right, is named; so is a chain of a stranger."""
    for place, record in enumerate(small_ledger):
        before = small_ledger[place - 1]
        if isinstance(record, Head) and isinstance(before, Line):
            line = added(before, record.writer)
            problems = check([*small_ledger[:place], line, *small_ledger[place:]]).problems
            assert problems == [
                f"Entry {record.seq + 1} of {record.writer} was added: its chain ends with {record.seq}."
            ]
            problems = check([*small_ledger[: place + 1], line, *small_ledger[place + 1 :]]).problems
            assert f"Entry {name_of(line)} was added behind the head of its chain." in problems
    stranger = added(None, "ffffffff-0000-7000-8000-000000000000")
    assert "has no signed end" in check([*small_ledger, stranger]).problems[0]


def test_a_chain_computed_anew_is_found(small_ledger: Records, check: Check) -> None:
    """Who can write to the database can compute every hash anew, but sign neither head nor checkpoint."""
    records: list[Record] = []
    first = next(record for record in small_ledger if isinstance(record, Line))
    assert first.payload is not None
    document = first.payload.document.replace('"status":200', '"status":201')
    forged = replace(first.payload, document=document, status=201)
    previous = GENESIS
    for record in small_ledger:
        changed = record
        if isinstance(record, Line) and record.entry.writer == first.entry.writer:
            if record is first:
                changed = Line(replace(first.entry, commitment=forged.commitment()), forged, None)
            assert isinstance(changed, Line)
            previous = changed.entry.computed_hash(previous)
            changed = replace(changed, entry=replace(changed.entry, hash=previous))
        records.append(changed)
    problems = check(records).problems
    assert any("is not the one that a checkpoint names" in problem for problem in problems)
    assert any("the head names another hash" in problem for problem in problems)


def test_another_key_signs_nothing(small_ledger: Records, check: Check) -> None:
    """With another public key every statement is unknown, and the sentence says what to do."""
    problems = check(small_ledger, key=new_private_key()).problems
    key = next(record.key for record in small_ledger if isinstance(record, Checkpoint))
    assert f"signed by the unknown key {key}. Give its public key." in problems[0]


def test_rolling_back_is_found_by_an_anchor(check: Check) -> None:
    """An older copy put back in place of the ledger verifies; that it is older shows against the anchor alone."""
    key, ids, engine = new_private_key(), Ids(), create_engine("sqlite://")
    metadata.create_all(engine)

    def records() -> Records:
        with engine.begin() as connection:
            return tuple(records_in(connection))

    store, chain = LedgerStore(engine, Signer(key)), Chain(ids.new())
    store.open_chain(chain.writer)
    older = records()
    with store.transaction() as connection:
        store.append(connection, chain.links([Draft(ids.new(), written_time(datetime.now(UTC)), FACTS)]), chain)
    store.checkpoint()
    anchor = check(records(), key=key).anchor
    store.close()
    assert check(older, key=key).problems == []
    assert "Checkpoint 2, which was noted earlier" in check(older, anchor, key).problems[0]


FACTS = {"principal": "ana", "status": 200, "model": None}


def test_rows_without_an_entry_are_found(at_rest: Connection, check: Check) -> None:
    """In a database, payloads and erasures that belong to no entry are named."""
    writer = next(record.entry.writer for record in records_in(at_rest) if isinstance(record, Line))
    at_rest.execute(text("INSERT INTO ledger_erasures VALUES (:writer, 99, '2026', 'k', 's')"), {"writer": writer})
    at_rest.execute(text("INSERT INTO ledger_payloads VALUES ('stranger', 1, 'i', 'p', 'm', 200, 's', 'd')"))
    problems = check(tuple(records_in(at_rest))).problems
    assert f"A row (erasure) belongs to no entry: number 99 of {writer}." in problems
    assert "A row (payload) belongs to no entry: number 1 of stranger." in problems


def test_a_payload_under_another_id_is_named(at_rest: Connection, check: Check) -> None:
    """A payload whose id is not the entry's belongs to no entry, and the entry lacks one."""
    at_rest.execute(text("UPDATE ledger_payloads SET id = 'other' WHERE seq = 5"))
    problems = check(tuple(records_in(at_rest))).problems
    assert any("The payload of entry 5" in problem for problem in problems)
    assert any("A row (payload) belongs to no entry: number 5" in problem for problem in problems)


def test_what_a_head_remembers_is_checked(at_rest: Connection, check: Check) -> None:
    """A head that was told that checkpoints name it already would never be named again: that is found."""
    at_rest.execute(text("UPDATE ledger_heads SET claimed = claimed + 99"))
    problems = check(tuple(records_in(at_rest))).problems
    assert len([problem for problem in problems if "as claimed" in problem]) == 3

"""Whether a change to a ledger is found, whatever it is, and whether an unchanged one is found good."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Draft, Entry, Head, Payload, written_time
from monitoring.ledger.erasure import Forgetting
from monitoring.ledger.exports import exported, line_of, record_of
from monitoring.ledger.identity import Ids
from monitoring.ledger.payloads import payload_problem
from monitoring.ledger.records import Header, Line, Record, records_in
from monitoring.ledger.retention import Pruning
from monitoring.ledger.signing import Signer, Verifier, new_private_key
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import metadata
from monitoring.ledger.verify import MOST_PROBLEMS, Anchor, Finding, verify

KEY, OTHER_KEY = new_private_key(), new_private_key()
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=10)


def facts(principal: str) -> dict[str, Any]:
    model = {"name": "stub", "version": "1.0"}
    return {"v": 1, "principal": principal, "status": 200, "code": None, "model": model, "output": None, "count": 1}


def build(engine: Any) -> None:
    """Three chains, one of them pruned, with erasures, checkpoints between them, and an end behind the last."""
    ids, now = Ids(lambda: 1_764_000_000_000), [LONG_AGO]
    store = LedgerStore(engine, Signer(KEY), lambda: now[0])
    chains = [Chain(ids.new()) for _ in range(3)]

    def write(chain: Chain, count: int, at: datetime) -> None:
        drafts = [Draft(ids.new(), written_time(at), facts(("ana", "bob")[index % 2])) for index in range(count)]
        links = chain.links(drafts)
        with store.transaction() as connection:
            store.append(connection, links, chain.seq)
        chain.advance(links)

    for chain, at in zip(chains, (NOW, LONG_AGO, NOW), strict=True):
        store.open_chain(chain.writer)
        write(chain, 4, at)
    store.checkpoint()
    now[0] = NOW
    for chain in chains:
        write(chain, 3, NOW)
        store.checkpoint()
    write(chains[0], 2, NOW)
    store.close()
    assert sum(Pruning(engine, Signer(KEY), NOW).prune(NOW - timedelta(days=5))) == 4
    assert sum(Forgetting(engine, Signer(KEY), NOW).erase("bob")) == 8


@contextmanager
def scratch() -> Iterator[Engine]:
    """An empty ledger in a file."""
    with TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/ledger.db")
        metadata.create_all(engine)
        yield engine
        engine.dispose()


@cache
def ledger() -> tuple[Record, ...]:
    """The records of a small ledger."""
    with scratch() as engine:
        build(engine)
        with engine.begin() as connection:
            return tuple(records_in(connection))


def check(records: Sequence[Record], noted: Anchor | None = None, key: str = KEY) -> Finding:
    return verify(iter(records), Verifier([Signer(key).public_key]), noted)


def test_an_unchanged_ledger_is_found_good() -> None:
    """Chains, erasures, stumps and checkpoints verify together; the anchor is the newest checkpoint."""
    finding = check(ledger())
    assert finding.problems == []
    assert (finding.writers, finding.entries, finding.erased, finding.withheld) == (3, 19, 8, 0)
    assert check(ledger(), finding.anchor).problems == []


@given(st.data())
def test_a_changed_field_is_found(data: st.DataObject) -> None:
    """Whichever field of whichever record is changed, and to whatever, something is wrong with that record."""
    records = list(ledger())
    place = data.draw(st.integers(1, len(records) - 1))
    record = records[place]
    part: Any = record
    if isinstance(record, Line):
        part = data.draw(st.sampled_from([part for part in (record.entry, record.payload, record.erasure) if part]))
    name = data.draw(st.sampled_from([field.name for field in fields(part)]))
    old = getattr(part, name)
    new = data.draw(st.integers(0, 50) if isinstance(old, int) else st.text() | st.just(old[:-1]) | st.just(old + "0"))
    if new == old:
        return
    changed = replace(part, **{name: new})
    if isinstance(record, Line):
        where = next(field.name for field in fields(record) if getattr(record, field.name) is part)
        changed = replace(record, **{where: changed})
    records[place] = changed
    assert check(records).problems


@given(st.data())
def test_a_missing_record_is_found(data: st.DataObject) -> None:
    """No record can be taken out, nor any number of neighbours, wherever they are."""
    records = list(ledger())
    first = data.draw(st.integers(1, len(records) - 1))
    last = data.draw(st.integers(first + 1, min(len(records), first + 8)))
    assert check(records[:first] + records[last:]).problems


@given(st.data())
def test_reordered_records_are_found(data: st.DataObject) -> None:
    """Two records that change places are found, but for two whole chains: their order means nothing."""
    records = list(ledger())
    one, two = sorted(data.draw(st.lists(st.integers(1, len(records) - 1), min_size=2, max_size=2, unique=True)))
    records[one], records[two] = records[two], records[one]
    assert check(records).problems


@given(st.data())
def test_a_repeated_record_is_found(data: st.DataObject) -> None:
    """A record that is there twice, wherever its copy stands, is found."""
    records = list(ledger())
    copy = records[data.draw(st.integers(1, len(records) - 1))]
    records.insert(data.draw(st.integers(1, len(records))), copy)
    assert check(records).problems


def lines() -> list[tuple[int, Line]]:
    return [(place, record) for place, record in enumerate(ledger()) if isinstance(record, Line)]


@pytest.mark.parametrize(("place", "line"), lines())
def test_the_entry_is_named(place: int, line: Line) -> None:
    """The problem names the entry that was changed, by its number, its writer and its id."""
    changed = replace(line, entry=replace(line.entry, commitment="0" * 64))
    records = [*ledger()[:place], changed, *ledger()[place + 1 :]]
    entry = line.entry
    assert f"Entry {entry.seq} of {entry.writer} ({entry.id})" in check(records).problems[0]


def forged(line: Line) -> Line:
    """Another answer under the same entry, with everything computed anew but what needs the key."""
    assert line.payload is not None
    document = line.payload.document.replace('"status":200', '"status":201')
    payload = replace(line.payload, document=document, status=201)
    entry = replace(line.entry, commitment=payload.commitment())
    return Line(entry, payload, None)


def test_a_chain_computed_anew_is_found() -> None:
    """Who can write to the database can compute every hash anew, but sign neither head nor checkpoint."""
    records: list[Record] = []
    previous: str | None = None
    for record in ledger():
        if isinstance(record, Line) and record.entry.writer == lines()[0][1].entry.writer:
            changed = forged(record) if previous is None else record
            digest = changed.entry.computed_hash(previous or "0" * 64)
            previous = digest
            records.append(replace(changed, entry=replace(changed.entry, hash=digest)))
        else:
            records.append(record)
    assert any("names" in problem for problem in check(records).problems)


def test_another_key_signs_nothing() -> None:
    """With another public key every statement is unknown, and the sentence says what to do."""
    problems = check(ledger(), key=OTHER_KEY).problems
    assert "Give its public key" in problems[0]


def test_rolling_back_is_found_by_an_anchor() -> None:
    """An older copy put back in place of the ledger verifies; that it is older shows against the anchor alone."""
    with scratch() as engine:
        store, chain = LedgerStore(engine, Signer(KEY)), Chain(Ids().new())
        store.open_chain(chain.writer)
        with engine.begin() as connection:
            older = tuple(records_in(connection))
        links = chain.links([Draft(Ids().new(), written_time(NOW), facts("ana"))])
        with store.transaction() as connection:
            store.append(connection, links, 0)
        store.checkpoint()
        with engine.begin() as connection:
            anchor = check(tuple(records_in(connection))).anchor
        store.close()
    assert check(older).problems == []
    assert "noted earlier" in check(older, anchor).problems[0]


def windows() -> Iterator[Header]:
    yield Header()
    yield Header(principal="ana")
    yield Header(model="other")
    for since, until in (("2026-11-20", ""), ("", "2026-11-20"), ("2026-11-20", "2026-11-24")):
        yield Header(since=since, until=until)


@pytest.fixture
def at_rest(engine: AsyncEngine, database_url: str) -> Iterator[Callable[[], Connection]]:
    """The small ledger in a database of either kind."""
    from auth.database import WRITING, open_blocking_engine

    assert engine.dialect.name in database_url
    blocking = open_blocking_engine(database_url).execution_options(**WRITING)
    build(blocking)
    with blocking.connect() as connection, connection.begin():
        yield lambda: connection
    blocking.dispose()


def test_exports_verify(at_rest: Callable[[], Connection]) -> None:
    """Whatever an export's filter leaves out, what it holds verifies, and each line comes back as it was."""
    for header in windows():
        records = tuple(exported(at_rest(), header))
        texts = [line_of(record) for record in records]
        assert tuple(record_of(line, 1) for line in texts) == records
        assert check(records).problems == []
        kept = [record for record in records if isinstance(record, Line) and record.payload]
        assert all(json.loads(line.payload.document)["principal"] == "ana" for line in kept if line.payload)
        assert bool(kept) == (header in (Header(), Header(principal="ana")) or header.since != "")


def test_a_windows_export_cannot_be_shortened(at_rest: Callable[[], Connection]) -> None:
    """No record can be left out of an export of a window, either: each piece ends in something signed."""
    records = tuple(exported(at_rest(), Header(since="2026-11-20")))
    for place in range(1, len(records)):
        assert check(records[:place] + records[place + 1 :]).problems, records[place]


def test_rows_without_an_entry_are_found(at_rest: Callable[[], Connection]) -> None:
    """In a database, payloads and erasures that belong to no entry are named."""
    connection = at_rest()
    writer = next(record.entry.writer for record in records_in(connection) if isinstance(record, Line))
    connection.execute(text("INSERT INTO ledger_erasures VALUES (:writer, 99, '2026', 'k', 's')"), {"writer": writer})
    connection.execute(
        text("INSERT INTO ledger_payloads VALUES ('stranger', 1, 'i', 'p', 'm', 200, 's', 'd')"),
    )
    problems = check(tuple(records_in(connection))).problems
    assert any("A row (erasure) belongs to no entry: number 99" in problem for problem in problems)
    assert any("A row (payload) belongs to no entry: number 1 of stranger" in problem for problem in problems)


def test_a_payload_of_another_shape_is_a_problem() -> None:
    """A document that is none, or lacks what it should say, is named, not an error."""
    place, line = lines()[0]
    assert line.payload is not None
    for document in ("", "[]", "null", "{}", '{"principal":1}'):
        payload = Payload("ana", "stub-v1.0", 200, line.payload.salt, document)
        entry = replace(line.entry, commitment=payload.commitment())
        records = [*ledger()[:place], Line(entry, payload, None), *ledger()[place + 1 :]]
        assert any("cannot be read" in problem for problem in check(records).problems), document


def with_line(change: Callable[[Line], Line]) -> list[Record]:
    """The records with a change to the first line that has a payload."""
    place, line = next((place, line) for place, line in lines() if line.payload)
    return [*ledger()[:place], change(line), *ledger()[place + 1 :]]


def with_payload(**changes: Any) -> list[Record]:
    return with_line(lambda line: replace(line, payload=replace(line.payload, **changes) if line.payload else None))


def chain_of(writer: str) -> list[Record]:
    owners = [record.entry if isinstance(record, Line) else record for record in ledger()]
    return [record for record, owner in zip(ledger(), owners, strict=True) if getattr(owner, "writer", "") == writer]


def test_a_value_has_one_spelling() -> None:
    """A salt or a signature that is written in another way, for the same bytes, is a change."""
    place, line = next((place, line) for place, line in lines() if line.payload)
    assert line.payload is not None
    salt = line.payload.salt
    for spelling in (salt.upper(), f"{salt[:2]} {salt[2:]}"):
        assert "its salt is none" in check(with_payload(salt=spelling)).problems[0]
    head = ledger()[-1]
    assert isinstance(head, Head)
    # The last character before the padding has four bits that stand for nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(head.signature[-3]) ^ 1]
    changed = replace(head, signature=f"{head.signature[:-3]}{other}==")
    assert base64.b64decode(changed.signature) == base64.b64decode(head.signature)
    assert "its signature does not fit" in check([*ledger()[:-1], changed]).problems[0]


def test_a_salt_ends_where_the_document_begins() -> None:
    """A byte that moves from the salt to the document leaves the commitment as it was, and is found."""
    place, line = next((place, line) for place, line in lines() if line.payload)
    assert line.payload is not None
    payload = replace(line.payload, salt=line.payload.salt[:-2] + "20")
    entry = replace(line.entry, commitment=payload.commitment())
    moved = replace(payload, salt=payload.salt[:-2], document=" " + payload.document)
    assert moved.commitment() == entry.commitment
    assert payload_problem(entry, payload) is None
    assert payload_problem(entry, moved) is not None


def test_a_stream_is_one_ledger() -> None:
    """An empty one, one without its header, two put together and a chain that comes again are none."""
    assert "nothing in it" in check([]).problems[0]
    assert "header is missing" in check(ledger()[1:]).problems[0]
    assert "second header" in check([Header(since="2026"), *ledger()]).problems[0]
    assert "second header" in check([*ledger(), Header(since="2026")]).problems[0]
    first = lines()[0][1].entry.writer
    assert "there twice" in check([*ledger(), *chain_of(first)]).problems[0]


@pytest.mark.parametrize("value", [None, 1.5, b"x", "\ud800", "x" * 500, "two\nlines"])
def test_values_of_another_kind_are_problems(value: Any) -> None:
    """SQLite takes anything in any column: whatever is there, it is a problem with a name and not an error."""
    for field in fields(Entry):
        changed = with_line(lambda line, name=field.name: replace(line, entry=replace(line.entry, **{name: value})))
        assert check(changed).problems, field.name
    for field in fields(Payload):
        assert check(with_payload(**{field.name: value})).problems, field.name


def test_no_more_problems_than_a_reader_takes() -> None:
    """A ledger that is wrong all over is told in twenty sentences."""
    assert len(check([*ledger(), *ledger()], key=OTHER_KEY).problems) == MOST_PROBLEMS


def test_what_a_head_remembers_is_checked(at_rest: Callable[[], Connection]) -> None:
    """A head that was told that checkpoints name it already would never be named again: that is found."""
    connection = at_rest()
    connection.execute(text("UPDATE ledger_heads SET claimed = claimed + 99"))
    problems = check(tuple(records_in(connection))).problems
    assert len([problem for problem in problems if "as claimed" in problem]) == 3


def test_a_payload_under_another_id_is_named(at_rest: Callable[[], Connection]) -> None:
    """A payload whose id is not the entry's belongs to no entry, and the entry lacks one."""
    connection = at_rest()
    connection.execute(text("UPDATE ledger_payloads SET id = 'other' WHERE seq = 5"))
    problems = check(tuple(records_in(connection))).problems
    assert any("The payload of entry 5" in problem for problem in problems)
    assert any("A row (payload) belongs to no entry: number 5" in problem for problem in problems)

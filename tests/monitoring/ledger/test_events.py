"""Entries that record events instead of requests."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import text

from monitoring.chains.signing import Signer, Verifier
from monitoring.errors import LedgerUnavailable, PredictionNotFound
from monitoring.ledger.entries import EntryKind, build_event, name_model_subject
from monitoring.ledger.exports.parquet import write_rows
from monitoring.ledger.ledger import LedgerState
from monitoring.ledger.reader import LedgerReader
from monitoring.ledger.records import EntryRecord, read_records
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.verification.stream import verify
from monitoring.ledger.writing.events import EventWriter
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import LedgerEnvironment, build_charge, build_facts
from tests.monitoring.quality.entries import build_label
from tests.support.polling import wait_until_async

MOVE = build_event(EntryKind.ALIAS_MOVED, name_model_subject("tiny"), {"who": "cli:olga"})
LABEL = build_label("01a2073c-bc9a-7019-bf0d-15032078e849")


def open_writer(environment: LedgerEnvironment) -> EventWriter:
    engine = open_blocking_engine(environment.url, 10).execution_options(**WRITING)
    return EventWriter(LedgerStore(engine, Signer(environment.key)))


def find_problems(environment: LedgerEnvironment, change: str | None = None) -> list[str]:
    """Return the problems that verification finds, after a change to the rows if one is given."""
    engine = open_blocking_engine(environment.url).execution_options(**WRITING)
    with engine.begin() as connection:
        if change is not None:
            connection.execute(text(change))
        problems = verify(read_records(connection), Verifier([Signer(environment.key).public_key])).problems
    engine.dispose()
    return problems


async def test_events_are_recorded_like_requests(environment: LedgerEnvironment) -> None:
    """Events are recorded in the chain of the requests, are spooled during an outage, and verify."""
    async with environment.ledger() as ledger:
        await ledger.record(build_facts(), build_charge())
        ids = [await ledger.record(MOVE, None)]
        async with environment.outage():
            ids.append(await ledger.record(LABEL, None))
        await wait_until_async(lambda: ledger.state is LedgerState.WRITING)
    assert find_problems(environment) == []
    assert [row.id for row in await environment.read_entries()][1:] == ids
    assert await environment.count_charged() == 1


async def test_events_are_no_requests_of_a_caller(environment: LedgerEnvironment) -> None:
    """Events are not in a caller's history and not found as predictions; they are listed by their subject."""
    async with environment.ledger() as ledger:
        request = await ledger.record(build_facts(), None)
        move, label = await ledger.record(MOVE, None), await ledger.record(LABEL, None)
    reader = LedgerReader(environment.engine)
    assert [item.entry.id for item in await reader.list_newest("ana", 10)] == [request]
    for event in (move, label):
        with pytest.raises(PredictionNotFound):
            await reader.find(event)
    (found,) = await reader.list_newest_events("ana", 10)
    assert (found.entry.id, found.read_facts()["label"]["label"]) == (label, "forest")
    (found,) = await reader.list_newest_events("model:tiny", 10)
    assert (found.entry.id, found.read_facts()["kind"]) == (move, "alias_moved")
    assert await reader.list_newest_events("model:tiny", 10, move) == []


async def test_erasing_a_person_erases_the_events_about_that_person(environment: LedgerEnvironment) -> None:
    """Erasing a person erases the labels of that person's predictions too; events about models stay."""
    async with environment.ledger() as ledger:
        for facts in (build_facts(), MOVE, LABEL):
            await ledger.record(facts, None)
    engine = open_blocking_engine(environment.url).execution_options(**WRITING)
    assert sum(Eraser(engine, Signer(environment.key), datetime.now(UTC)).erase("ana")) == 2
    engine.dispose()
    reader = LedgerReader(environment.engine)
    assert await reader.list_newest_events("ana", 10) == []
    assert len(await reader.list_newest_events("model:tiny", 10)) == 1
    assert find_problems(environment) == []


async def test_another_process_records_events_beside_a_gateway(environment: LedgerEnvironment) -> None:
    """A command appends to a chain of its own with a signed head, while a ledger is open."""
    async with environment.ledger() as ledger:
        before = await ledger.record(build_facts(), None)
        with open_writer(environment) as writer:
            ids = [writer.record(MOVE) for _ in range(3)]
        after = await ledger.record(build_facts(), None)
    assert before < ids[0]
    assert sorted(ids) == ids
    rows = await environment.read_entries()
    assert {row.id for row in rows} == {before, *ids, after}
    assert len({row.writer for row in rows}) == 2
    assert find_problems(environment) == []
    (writer_id,) = {row.writer for row in rows if row.id in ids}
    change = f"UPDATE ledger_heads SET seq = 2 WHERE writer = '{writer_id}'"  # noqa: S608
    assert any("signature does not match" in problem for problem in find_problems(environment, change))


async def test_a_process_records_events_without_a_gateway(environment: LedgerEnvironment) -> None:
    """A command may write a ledger's first entries, which verify even if it is interrupted; in an outage it fails."""
    with suppress(KeyError), open_writer(environment) as writer:
        writer.record(MOVE)
        raise KeyError
    assert find_problems(environment) == []
    with open_writer(environment) as writer:
        writer.record(MOVE)
    assert find_problems(environment) == []
    async with environment.outage():
        with pytest.raises(LedgerUnavailable), open_writer(environment) as writer:
            writer.record(MOVE)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_payloads SET document = replace(document, 'cli:olga', 'cli:oleg')",
        "UPDATE ledger_payloads SET status = 200",
        "UPDATE ledger_payloads SET principal = 'model:tinx'",
        "DELETE FROM ledger_payloads",
    ],
)
async def test_a_changed_event_is_found(environment: LedgerEnvironment, change: str) -> None:
    """Verification reports any change to the payload of an event."""
    with open_writer(environment) as writer:
        writer.record(MOVE)
    assert find_problems(environment) == []
    (problem,) = find_problems(environment, change)
    assert "ayload" in problem


async def test_parquet_exports_name_the_kind(environment: LedgerEnvironment, tmp_path: Path) -> None:
    """The column `kind` distinguishes events from predictions, whose documents have no such member."""
    async with environment.ledger() as ledger:
        for facts in (build_facts(), MOVE, LABEL):
            await ledger.record(facts, None)
    engine = open_blocking_engine(environment.url)
    with engine.begin() as connection:
        records = list(write_rows(read_records(connection), tmp_path / "export.parquet"))
    engine.dispose()
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(tmp_path / "export.parquet").to_pylist()
    kinds = [row["kind"] for row, record in zip(rows, records, strict=True) if isinstance(record, EntryRecord)]
    assert kinds == ["prediction", "alias_moved", "label"]
    assert [row["label"] for row in rows if row["label"] is not None] == ["forest"]

"""The statements and round trips of a transaction with entries."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection as PostgresConnection
from sqlalchemy import event

from api.prediction.quotas import QuotaChargeRecorder
from auth.principal import Principal
from auth.quotas.meter import UsageMeter
from monitoring.chains.ids import new_id
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.batches import PendingEntry
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.journal import Journal
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import (
    DATABASE_WAIT_S,
    NOW,
    LedgerEnvironment,
    build_charge,
    build_facts,
)


def commit_pair(journal: Journal) -> None:
    """Commit two predictions of one caller in one transaction."""
    drafts = [EntryDraft(new_id(), format_timestamp(NOW), build_facts()) for _ in range(2)]
    assert journal.commit([PendingEntry(draft, build_charge()) for draft in drafts]) == [None, None]


@contextmanager
def open_journal(environment: LedgerEnvironment, on_connect: Callable[[Any], None]) -> Iterator[Journal]:
    """Open a journal whose caller was charged before; `on_connect` is called with each connection of the driver."""
    engine = open_blocking_engine(environment.url, DATABASE_WAIT_S).execution_options(**WRITING)
    event.listen(engine, "connect", lambda connection, _: on_connect(connection))
    recorder = QuotaChargeRecorder(UsageMeter(environment.engine))
    journal = Journal(LedgerStore(engine, Signer(environment.key)), recorder, environment.spool_folder())
    journal.open()
    commit_pair(journal)
    try:
        yield journal
    finally:
        journal.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_two_predictions_take_four_kinds_of_statements(environment: LedgerEnvironment) -> None:
    """SQLite executes one statement for the charges, one for the head, and one for each entry and payload."""
    statements: list[str] = []

    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(lambda statement: statements.append(" ".join(statement.split()[:3])))

    with open_journal(environment, trace) as journal:
        statements.clear()
        commit_pair(journal)
        assert statements == [
            "BEGIN IMMEDIATE",
            "INSERT INTO usage",
            "UPDATE ledger_heads SET",
            *["INSERT INTO ledger_entries"] * 2,
            *["INSERT INTO ledger_payloads"] * 2,
            "COMMIT",
        ]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_two_predictions_take_four_round_trips(environment: LedgerEnvironment, tmp_path: Path) -> None:
    """A transaction waits for PostgreSQL four times: to begin, for the charges, for the ledger's rows, to commit."""
    path = tmp_path / "trace"
    with path.open("wb", buffering=0) as traced:

        def trace(connection: PostgresConnection) -> None:
            connection.pgconn.trace(traced.fileno())

        with open_journal(environment, trace) as journal:
            start = path.stat().st_size
            commit_pair(journal)
            messages = path.read_text()[start:]
    directions = "".join(re.findall(r"\t([FB])\t", messages))
    assert len(re.findall("F+B+", directions)) == 4


async def test_committed_charges_are_cached(environment: LedgerEnvironment) -> None:
    """After predictions were charged in the ledger's transaction, their caller is admitted without a query."""
    engine = open_blocking_engine(environment.url, DATABASE_WAIT_S).execution_options(**WRITING)
    meter, queries = UsageMeter(environment.engine, NOW.timestamp), list[str]()
    store = LedgerStore(engine, Signer(environment.key))
    journal = Journal(store, QuotaChargeRecorder(meter), environment.spool_folder())
    journal.open()
    commit_pair(journal)
    journal.close()
    event.listen(environment.engine.sync_engine, "before_cursor_execute", lambda *rest: queries.append(rest[2]))
    await meter.admit(Principal("ana", "ana", None, frozenset(), None), 1)
    assert queries == []

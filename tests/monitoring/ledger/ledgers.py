"""Small ledgers in a database, for tests that change its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from monitoring.chains.anchors import Anchor
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.records import read_records
from monitoring.ledger.verification.report import LedgerReport
from monitoring.ledger.verification.stream import verify
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import build_facts

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=100)
KEY = new_private_key()


@contextmanager
def open_database(url: str) -> Iterator[Engine]:
    engine = open_blocking_engine(url, 30).execution_options(**WRITING)
    try:
        yield engine
    finally:
        engine.dispose()


def execute(url: str, statement: str) -> int:
    """Run a statement that bypasses the ledger, and return the number of rows that it changed."""
    with open_database(url) as engine, engine.begin() as connection:
        return connection.execute(text(statement)).rowcount


def fill_ledger(url: str, count: int, at: datetime, principals: str = "ana bob", chain: Chain | None = None) -> Chain:
    """Append `count` entries, with alternating principals, and a checkpoint to a new or existing chain."""
    names, ids = principals.split(), MonotonicIds(lambda: int(at.timestamp() * 1000))
    with open_database(url) as engine:
        store = LedgerStore(engine, Signer(KEY), lambda: at)
        if chain is None:
            chain = Chain(ids.new())
            store.open_chain(chain.writer)
        timestamp = format_timestamp(at)
        facts = [build_facts(names[index % len(names)]) for index in range(count)]
        linked = chain.link([EntryDraft(ids.new(), timestamp, document) for document in facts])
        with store.batch_transaction() as connection:
            store.append(connection, linked, chain)
        chain.advance(linked)
        store.write_checkpoint()
        store.close()
    return chain


def verify_database(url: str, anchor: Anchor | None = None) -> LedgerReport:
    with open_database(url) as engine, engine.begin() as connection:
        return verify(read_records(connection), Verifier([Signer(KEY).public_key]), anchor)


def verify_intact(url: str) -> LedgerReport:
    """Verify a ledger and assert that it has no problems."""
    report = verify_database(url)
    assert report.problems == []
    return report

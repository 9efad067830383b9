"""Fixtures for this package's tests: migrated databases, and a small prediction ledger."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.audit.store import AuditStore
from monitoring.chains.anchors import Anchor
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.records import Record, read_records
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from monitoring.ledger.verification.report import LedgerReport
from monitoring.ledger.verification.stream import verify
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import LedgerEnvironment, build_facts

LEDGER_KEY = new_private_key()
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=10)

Verify = Callable[..., LedgerReport]


@pytest.fixture
def url(migrated_url: str) -> str:
    """The URL of a database with all tables, once on SQLite and once on PostgreSQL."""
    return migrated_url


@pytest.fixture
def blocking(url: str) -> Iterator[Engine]:
    """A synchronous engine, for code that runs in threads."""
    engine = open_blocking_engine(url, 30)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> AuditStore:
    return AuditStore(engine)


def _build_facts(principal: str) -> dict[str, Any]:
    output = {"index": 5, "label": "forest", "confidence": 0.75, "probabilities": {"forest": 0.75, "river": 0.25}}
    if principal == "bob":  # ana's entries look like those of release 0.1.0, which have neither field
        output |= {"temperature": 1.5, "abstention": {"policy": "mark", "reason": "low_confidence"}}
    return build_facts(principal, output=output)


def build_ledger(engine: Engine) -> None:
    """Write three chains, one of them pruned, with erasures, checkpoints, and entries after the last checkpoint."""
    ids, now = MonotonicIds(lambda: 1_764_000_000_000), [LONG_AGO]
    store = LedgerStore(engine, Signer(LEDGER_KEY), lambda: now[0])
    chains = [Chain(ids.new()) for _ in range(3)]

    def write(chain: Chain, count: int, at: datetime) -> None:
        facts = [_build_facts(("ana", "bob")[index % 2]) for index in range(count)]
        drafts = [EntryDraft(ids.new(), format_timestamp(at), document) for document in facts]
        linked = chain.link(drafts)
        with store.batch_transaction() as connection:
            store.append(connection, linked, chain)
        chain.advance(linked)

    for chain, at in zip(chains, (NOW, LONG_AGO, NOW), strict=True):
        store.open_chain(chain.writer)
        write(chain, 4, at)
    store.write_checkpoint()
    now[0] = NOW
    for chain in chains:
        write(chain, 3, NOW)
        store.write_checkpoint()
    write(chains[0], 2, NOW)
    store.close()
    assert sum(Pruner(engine, Signer(LEDGER_KEY), NOW).prune(NOW - timedelta(days=5))) == 4
    assert sum(Eraser(engine, Signer(LEDGER_KEY), NOW).erase("bob")) == 8


@pytest.fixture(scope="session")
def small_ledger(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    """The records of the ledger that `build_ledger` writes."""
    path = shutil.copy(migrated_file, tmp_path_factory.mktemp("ledger"))
    engine = create_engine(f"sqlite:///{path}")
    build_ledger(engine)
    with engine.begin() as connection:
        records = tuple(read_records(connection))
    engine.dispose()
    return records


@pytest.fixture
def small_database(url: str) -> Iterator[Connection]:
    """A connection, with an open transaction, to a SQLite or PostgreSQL database that contains the same ledger."""
    blocking = open_blocking_engine(url).execution_options(**WRITING)
    build_ledger(blocking)
    with blocking.connect() as connection, connection.begin():
        yield connection
    blocking.dispose()


@pytest.fixture(scope="session")
def verify_records() -> Verify:
    """A function that verifies records with the public key of `LEDGER_KEY`, or of another private key."""

    def verify_records(records: Sequence[Record], anchor: Anchor | None = None, key: str = LEDGER_KEY) -> LedgerReport:
        return verify(iter(records), Verifier([Signer(key).public_key]), anchor)

    return verify_records


@pytest.fixture
def environment(
    patient_sqlite: None,  # noqa: ARG001  (the ledger and the test write concurrently)
    patient_commits: None,  # noqa: ARG001  (the tests do not expect spooled entries)
    database_url: str,
    engine: AsyncEngine,
    tmp_path: Path,
) -> LedgerEnvironment:
    return LedgerEnvironment(database_url, engine, tmp_path / "spool")

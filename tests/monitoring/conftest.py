"""What the room's tests share: the record's tables, and a small prediction ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
import monitoring
from monitoring.audit.store import AuditStore
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Draft, written_time
from monitoring.ledger.erasure import Eraser
from monitoring.ledger.identity import Ids
from monitoring.ledger.records import Record, records_in
from monitoring.ledger.retention import Pruning
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import metadata
from monitoring.ledger.verify import Anchor, Finding, verify
from storage.engine import open_blocking_engine, open_engine
from storage.migrations import migrate
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import LedgerEnvironment

LEDGER_KEY = new_private_key()
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=10)

Check = Callable[..., Finding]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A database of either kind, with the record's tables."""
    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
    yield engine
    await engine.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> AuditStore:
    return AuditStore(engine)


def _facts(principal: str) -> dict[str, Any]:
    model = {"name": "stub", "version": "1.0"}
    output = {"index": 5, "label": "forest", "confidence": 0.75, "probabilities": {"forest": 0.75, "river": 0.25}}
    return {"v": 1, "principal": principal, "status": 200, "code": None, "model": model, "output": output, "count": 1}


def build_ledger(engine: Engine) -> None:
    """Three chains, one of them pruned, with erasures, checkpoints between them, and an end behind the last."""
    ids, now = Ids(lambda: 1_764_000_000_000), [LONG_AGO]
    store = LedgerStore(engine, Signer(LEDGER_KEY), lambda: now[0])
    chains = [Chain(ids.new()) for _ in range(3)]

    def write(chain: Chain, count: int, at: datetime) -> None:
        drafts = [Draft(ids.new(), written_time(at), _facts(("ana", "bob")[index % 2])) for index in range(count)]
        links = chain.links(drafts)
        with store.transaction() as connection:
            store.append(connection, links, chain)
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
    assert sum(Pruning(engine, Signer(LEDGER_KEY), NOW).prune(NOW - timedelta(days=5))) == 4
    assert sum(Eraser(engine, Signer(LEDGER_KEY), NOW).erase("bob")) == 8


@pytest.fixture(scope="session")
def small_ledger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    """The records of a ledger of three chains."""
    folder: Path = tmp_path_factory.mktemp("ledger")
    engine = create_engine(f"sqlite:///{folder}/ledger.db")
    metadata.create_all(engine)
    build_ledger(engine)
    with engine.begin() as connection:
        records = tuple(records_in(connection))
    engine.dispose()
    return records


@pytest.fixture
def at_rest(engine: AsyncEngine, database_url: str) -> Iterator[Connection]:
    """The same ledger in a database of either kind."""
    assert engine.dialect.name in database_url
    blocking = open_blocking_engine(database_url).execution_options(**WRITING)
    build_ledger(blocking)
    with blocking.connect() as connection, connection.begin():
        yield connection
    blocking.dispose()


@pytest.fixture(scope="session")
def check() -> Check:
    """Verify records with the ledger's public key, or another's."""

    def check(records: Sequence[Record], noted: Anchor | None = None, key: str = LEDGER_KEY) -> Finding:
        return verify(iter(records), Verifier([Signer(key).public_key]), noted)

    return check


@pytest.fixture
def environment(database_url: str, engine: AsyncEngine, tmp_path: Path) -> LedgerEnvironment:
    return LedgerEnvironment(database_url, engine, tmp_path / "spool")

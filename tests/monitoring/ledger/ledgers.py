"""Ledgers of a few chains in a database of either kind, for tests that change them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Draft, written_time
from monitoring.ledger.identity import Ids
from monitoring.ledger.records import records_in
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.verify import Anchor, Finding, verify
from storage.engine import open_blocking_engine
from storage.transactions import WRITING

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=100)
KEY = new_private_key()


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = open_blocking_engine(url, 30).execution_options(**WRITING)
    try:
        yield engine
    finally:
        engine.dispose()


def fill(url: str, count: int, at: datetime, principals: str = "ana bob", chain: Chain | None = None) -> Chain:
    """Add so many entries, of the principals in turn, and a checkpoint: to a new chain, or on to one."""
    names, ids = principals.split(), Ids(lambda: int(at.timestamp() * 1000))
    with opened(url) as engine:
        store = LedgerStore(engine, Signer(KEY), lambda: at)
        if chain is None:
            chain = Chain(ids.new())
            store.open_chain(chain.writer)
        moment = written_time(at)
        links = chain.links([Draft(ids.new(), moment, facts(names[index % len(names)])) for index in range(count)])
        with store.transaction() as connection:
            store.append(connection, links, chain)
        chain.advance(links)
        store.checkpoint()
        store.close()
    return chain


def facts(principal: str) -> dict[str, Any]:
    model = {"name": "stub", "version": "1.0"}
    return {"v": 1, "principal": principal, "status": 200, "code": None, "model": model, "output": None, "count": 1}


def found(url: str, noted: Anchor | None = None) -> Finding:
    with opened(url) as engine, engine.begin() as connection:
        return verify(records_in(connection), Verifier([Signer(KEY).public_key]), noted)


def checked(url: str) -> Finding:
    """Of a ledger that must be whole."""
    finding = found(url)
    assert finding.problems == []
    return finding

"""Ledgers for tests, on one database and one spool folder, and access to what they have written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.prediction.quotas import QuotaChargeRecorder
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import format_month
from auth.tables import usage
from monitoring.chains.anchors import GENESIS
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.errors import LedgerFull
from monitoring.ledger.entries import Head, LedgerEntry, Payload
from monitoring.ledger.journal import Journal
from monitoring.ledger.ledger import Ledger, LedgerState
from monitoring.ledger.spool.folder import SpoolFolder
from monitoring.ledger.spool.queue import Spool
from monitoring.ledger.tables import ledger_entries, ledger_heads, ledger_payloads
from storage.engine import open_blocking_engine, sqlite_path
from storage.transactions import WRITING, reading, writing
from tests.monitoring.ledger.faults import FaultySpool, FaultyStore

LONG_TEXT = "x" * 20_000
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
SPOOL_BYTES = 1_000_000
DATABASE_WAIT_S = 60  # after a shorter wait, a ledger on a slow machine would spool, which tests do not expect


@dataclass
class LedgerEnvironment:
    """Opens ledgers on one database and one spool folder; their stores and spools can be made to fail."""

    url: str
    engine: AsyncEngine
    path: Path
    key: str = field(default_factory=new_private_key)
    states: list[tuple[str, int]] = field(default_factory=list)
    stores: list[FaultyStore] = field(default_factory=list)
    spools: list[FaultySpool] = field(default_factory=list)
    durable: int = 0
    checkpoint_failures: int = 0

    @property
    def store(self) -> FaultyStore:
        return self.stores[-1]

    @property
    def spool(self) -> FaultySpool:
        """The spool of the ledger opened last."""
        return self.spools[-1]

    def spool_folder(self) -> SpoolFolder:
        return SpoolFolder(self.path, SPOOL_BYTES, sqlite_path(self.url), self._open_spool)

    @asynccontextmanager
    async def ledger(
        self,
        *,
        enabled: bool = True,
        clock: Callable[[], datetime] = lambda: NOW,
        folder: SpoolFolder | None = None,
        store_type: type[FaultyStore] = FaultyStore,
    ) -> AsyncIterator[Ledger]:
        engine = open_blocking_engine(self.url, DATABASE_WAIT_S).execution_options(**WRITING)
        self.stores.append(store_type(engine, Signer(self.key)))
        charge_recorder = QuotaChargeRecorder(UsageMeter(self.engine))
        journal = Journal(self.store, charge_recorder, folder or self.spool_folder(), enabled=enabled)
        async with Ledger(journal, self._record_state, self._count_entries, clock, self._count_failure) as ledger:
            yield ledger

    def _open_spool(self, path: Path, limit_bytes: int) -> Spool:
        self.spools.append(FaultySpool(path, limit_bytes))
        return self.spool

    def _record_state(self, state: LedgerState, spooled: int) -> None:
        self.states.append((state, spooled))

    def _count_entries(self, entries: int) -> None:
        self.durable += entries

    def _count_failure(self) -> None:
        self.checkpoint_failures += 1

    async def execute(self, statement: str) -> None:
        async with writing(self.engine) as connection:
            await connection.execute(text(statement))

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Make writing entries to the database fail until the context ends."""
        await self.execute("ALTER TABLE ledger_entries RENAME TO hidden")
        yield
        await self.execute("ALTER TABLE hidden RENAME TO ledger_entries")

    async def read_entries(self) -> list[Row[Any]]:
        """Return the entries of every chain, and check each hash, commitment and signed head."""
        async with reading(self.engine) as connection:
            ordered = select(ledger_entries).order_by(ledger_entries.c.writer, ledger_entries.c.seq)
            entries = list(await connection.execute(ordered))
            payloads = {(row.writer, row.seq): row for row in await connection.execute(select(ledger_payloads))}
            heads = list(await connection.execute(select(ledger_heads)))
        verifier = Verifier([Signer(self.key).public_key])
        for head in heads:
            chain = [row for row in entries if row.writer == head.writer]
            assert [row.seq for row in chain] == list(range(1, len(chain) + 1))
            previous = GENESIS
            for row in chain:
                assert row.hash == LedgerEntry(*row).compute_hash(previous)
                payload = payloads.pop((row.writer, row.seq))
                assert Payload(*payload[3:]).compute_commitment() == row.commitment
                previous = row.hash
            assert (head.seq, head.hash) == (len(chain), previous)
            signed = Head(head.writer, head.seq, head.hash, head.checkpoint)
            assert verifier.is_valid(signed.statement(), head.key, head.signature)
        assert payloads == {}
        return entries

    async def read_documents(self) -> list[dict[str, Any]]:
        """Return the payloads' documents in order of their ids."""
        async with reading(self.engine) as connection:
            ordered = select(ledger_payloads.c.document).order_by(ledger_payloads.c.id)
            return [json.loads(text) for text in (await connection.execute(ordered)).scalars()]

    async def count_charged(self, owner: str = "user:ana") -> int:
        """Return how many requests were charged to the owner."""
        async with reading(self.engine) as connection:
            counted = select(usage.c.requests).where(usage.c.owner == owner)
            return (await connection.execute(counted)).scalar_one_or_none() or 0


def build_facts(principal: str = "ana", **changes: Any) -> dict[str, Any]:
    model = {"name": "stub", "version": "1.0", "digest": "d" * 64, "backend": "stub"}
    output = {"index": 0, "label": "forest", "confidence": 0.1, "probabilities": {"forest": 0.1}}
    always = {"v": 1, "principal": principal, "key": None, "status": 200, "code": None, "count": 1, "image": {}}
    return {**always, "model": model, "preprocessing": "1", "runtime": {}, "output": output, **changes}


def build_refusal(code: str, principal: str = "ana") -> dict[str, Any]:
    nothing = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))
    return build_facts(principal, status=415, code=code, **nothing)


def build_charge(owner: str = "user:ana") -> dict[str, Any]:
    return {"owners": [owner], "month": format_month(NOW.timestamp()), "requests": 1, "pixels": 7}


async def fill_spool(ledger: Ledger) -> list[str]:
    """Record long entries until one is rejected; return the ids of the others."""
    ids: list[str] = []
    with suppress(LedgerFull):
        while len(ids) < 100:
            ids.append(await ledger.record(build_facts(note=LONG_TEXT), build_charge()))
    return ids

"""A house in which ledgers open and close, what they are given, and what came of it."""

from __future__ import annotations

import asyncio
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
from api.services.recording import open_journal
from api.settings import Settings
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import format_month
from auth.tables import usage
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.errors import LedgerFull
from monitoring.ledger.entries import GENESIS, Entry, Head, Payload
from monitoring.ledger.journal import Journal
from monitoring.ledger.ledger import Ledger, State
from monitoring.ledger.tables import ledger_entries, ledger_heads, ledger_payloads
from storage.transactions import reading, writing

LONG = "x" * 20_000
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


@dataclass
class LedgerEnvironment:
    """A database and a folder in which ledgers open one after the other."""

    url: str
    engine: AsyncEngine
    folder: Path
    key: str = field(default_factory=new_private_key)
    states: list[tuple[str, int]] = field(default_factory=list)
    journals: list[Journal] = field(default_factory=list)
    durable: int = 0

    @asynccontextmanager
    async def ledger(self, **changes: Any) -> AsyncIterator[Ledger]:
        options = {"signing_key": self.key, "spool_folder": self.folder, "spool_megabytes": 1, **changes}
        settings = Settings(_env_file=None, database_url=self.url, ledger=options)
        journal = open_journal(settings, QuotaChargeRecorder(UsageMeter(self.engine)))
        self.journals.append(journal)
        async with Ledger(journal, self._hear, self._count, lambda: NOW) as ledger:
            yield ledger

    def _hear(self, state: State, spooled: int) -> None:
        self.states.append((state, spooled))

    def _count(self, entries: int) -> None:
        self.durable += entries

    async def execute(self, statement: str) -> None:
        async with writing(self.engine) as connection:
            await connection.execute(text(statement))

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Meanwhile no entry can be written to the database."""
        await self.execute("ALTER TABLE ledger_entries RENAME TO hidden")
        yield
        await self.execute("ALTER TABLE hidden RENAME TO ledger_entries")

    async def entries(self) -> list[Row[Any]]:
        """Every chain one after the other, as read from the database; each link and each head is checked."""
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
                assert row.hash == Entry(*row).computed_hash(previous)
                payload = payloads.pop((row.writer, row.seq))
                assert Payload(*payload[3:]).commitment() == row.commitment
                previous = row.hash
            assert (head.seq, head.hash) == (len(chain), previous)
            signed = Head(head.writer, head.seq, head.hash, head.checkpoint)
            assert verifier.holds(signed.text(), head.key, head.signature)
        assert payloads == {}
        return entries

    async def documents(self) -> list[dict[str, Any]]:
        """In the order of their ids."""
        async with reading(self.engine) as connection:
            ordered = select(ledger_payloads.c.document).order_by(ledger_payloads.c.id)
            return [json.loads(text) for text in (await connection.execute(ordered)).scalars()]

    async def used(self, owner: str = "user:ana") -> int:
        async with reading(self.engine) as connection:
            counted = select(usage.c.requests).where(usage.c.owner == owner)
            return (await connection.execute(counted)).scalar_one_or_none() or 0


def facts(principal: str = "ana", **changes: Any) -> dict[str, Any]:
    model = {"name": "stub", "version": "1.0", "digest": "d" * 64, "backend": "stub"}
    output = {"index": 0, "label": "forest", "confidence": 0.1, "probabilities": {"forest": 0.1}}
    always = {"v": 1, "principal": principal, "key": None, "status": 200, "code": None, "count": 1, "image": {}}
    return {**always, "model": model, "preprocessing": "1", "runtime": {}, "output": output, **changes}


def refused(code: str, principal: str = "ana") -> dict[str, Any]:
    nothing = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))
    return facts(principal, status=415, code=code, **nothing)


def cost(owner: str = "user:ana") -> dict[str, Any]:
    return {"owners": [owner], "month": format_month(NOW.timestamp()), "requests": 1, "pixels": 7}


async def fill(ledger: Ledger) -> list[str]:
    """Record long entries until one is refused; returns the ids of the others."""
    ids: list[str] = []
    with suppress(LedgerFull):
        while len(ids) < 100:
            ids.append(await ledger.record(facts(note=LONG), cost()))
    return ids


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (it changes in other threads)
            await asyncio.sleep(0.01)

"""Past predictions, for those whose they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, union
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.errors import LedgerUnavailable, PredictionNotFound
from monitoring.ledger.entries import GENESIS, Entry, Payload, plain
from monitoring.ledger.tables import ledger_entries, ledger_payloads, ledger_stumps
from storage.errors import DatabaseUnavailable
from storage.transactions import reading


@dataclass(frozen=True, slots=True)
class Past:
    """A recorded request: its entry, and what this commits to."""

    entry: Entry
    payload: Payload

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.payload.document)
        return facts


class LedgerReader:
    """Every method raises LedgerUnavailable while the database is unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, entry_id: str, principal: str | None = None) -> Past:
        """The prediction of that id; another `principal`'s is not found. Raises PredictionNotFound."""
        wanted = _joined().where(ledger_entries.c.id == entry_id)
        if principal is not None:
            wanted = wanted.where(ledger_payloads.c.principal == plain(principal))
        async with _view(self._engine) as connection:
            row = (await connection.execute(wanted)).one_or_none()
        if row is None:
            raise PredictionNotFound
        return _past(row)

    async def newest(self, principal: str, limit: int, before: str | None = None) -> Sequence[Past]:
        """At most `limit` of the principal's, newest first, and only those with an id below `before`."""
        columns = ledger_payloads.c
        wanted = _joined().where(columns.principal == plain(principal)).order_by(columns.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(columns.id < before)
        async with _view(self._engine) as connection:
            return [_past(row) for row in await connection.execute(wanted)]

    async def hash_before(self, entry: Entry) -> str | None:
        """The hash that `entry` must follow, its predecessor's or a stump's; None where neither is there."""
        if entry.seq == 1:
            return GENESIS
        wanted = (
            select(table.c.hash).where(table.c.writer == entry.writer, table.c.seq == entry.seq - 1)
            for table in (ledger_entries, ledger_stumps)
        )
        async with _view(self._engine) as connection:
            found: str | None = (await connection.execute(union(*wanted))).scalar()
        return found


def _joined() -> Select[Any]:
    entries, payloads = ledger_entries.c, ledger_payloads.c
    same = (entries.writer == payloads.writer) & (entries.seq == payloads.seq)
    kept = payloads.principal, payloads.model, payloads.status, payloads.salt, payloads.document
    return select(*entries, *kept).join_from(ledger_payloads, ledger_entries, same)


def _past(row: Any) -> Past:
    return Past(Entry(*row[:6]), Payload(*row[6:]))


@asynccontextmanager
async def _view(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with reading(engine, strict=True) as connection:
            yield connection
    except DatabaseUnavailable as error:
        raise LedgerUnavailable from error

"""Past predictions, for those whose they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, union
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from monitoring.errors import LedgerUnavailable, PredictionNotFound
from monitoring.ledger.entries import GENESIS, Entry, Payload, plain
from monitoring.ledger.tables import ledger_entries, ledger_payloads, ledger_stumps

Transaction = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


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
    """`reading` opens transactions. Every method raises LedgerUnavailable while the database is away."""

    def __init__(self, reading: Transaction) -> None:
        self._reading = reading

    async def find(self, entry_id: str, principal: str | None = None) -> Past:
        """The prediction of that id; another `principal`'s is not found. Raises PredictionNotFound."""
        wanted = _joined().where(ledger_entries.c.id == entry_id)
        if principal is not None:
            wanted = wanted.where(ledger_payloads.c.principal == plain(principal))
        async with _or_unavailable(self._reading) as connection:
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
        async with _or_unavailable(self._reading) as connection:
            return [_past(row) for row in await connection.execute(wanted)]

    async def hash_before(self, entry: Entry) -> str | None:
        """The hash that `entry` must follow, its predecessor's or a stump's; None where neither is there."""
        if entry.seq == 1:
            return GENESIS
        wanted = (
            select(table.c.hash).where(table.c.writer == entry.writer, table.c.seq == entry.seq - 1)
            for table in (ledger_entries, ledger_stumps)
        )
        async with _or_unavailable(self._reading) as connection:
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
async def _or_unavailable(transaction: Transaction) -> AsyncIterator[AsyncConnection]:
    try:
        async with transaction() as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        raise LedgerUnavailable from error

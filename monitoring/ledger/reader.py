"""Reads recorded requests, for the callers who sent them, and events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, Select, func, not_, select, union
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.chains.anchors import GENESIS
from monitoring.errors import LedgerUnavailable, PredictionNotFound
from monitoring.ledger.entries import NO_REQUEST, EntryWithPayload, LedgerEntry, Payload, sanitize_name
from monitoring.ledger.tables import ledger_entries, ledger_erasures, ledger_labels, ledger_payloads, ledger_stumps
from storage.errors import DatabaseUnavailable
from storage.transactions import reading

_IS_REQUEST = ledger_payloads.c.status != NO_REQUEST


class LedgerReader:
    """Every method raises LedgerUnavailable while the database is unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, entry_id: str, principal: str | None = None) -> EntryWithPayload:
        """Return the request with that id, if it is `principal`'s or no principal is given.

        Raises PredictionNotFound, including for a request whose payload was erased.
        """
        statement = _select_with_payload().where(ledger_entries.c.id == entry_id, _IS_REQUEST)
        if principal is not None:
            statement = statement.where(ledger_payloads.c.principal == sanitize_name(principal))
        async with _reading(self._engine) as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise PredictionNotFound
        return _read_row(row)

    async def list_newest(self, principal: str, limit: int, before: str | None = None) -> Sequence[EntryWithPayload]:
        """Return at most `limit` requests of the principal, newest first; with `before`, only those with a lower id."""
        return await self._list(sanitize_name(principal), _IS_REQUEST, limit, before)

    async def list_newest_events(
        self, subject: str, limit: int, before: str | None = None
    ) -> Sequence[EntryWithPayload]:
        """Return events of any kind about the subject; otherwise like `list_newest`."""
        return await self._list(sanitize_name(subject), not_(_IS_REQUEST), limit, before)

    async def _list(
        self, subject: str, condition: ColumnElement[bool], limit: int, before: str | None
    ) -> Sequence[EntryWithPayload]:
        columns = ledger_payloads.c
        statement = _select_with_payload().where(columns.principal == subject, condition)
        statement = statement.order_by(columns.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(columns.id < before)
        async with _reading(self._engine) as connection:
            return [_read_row(row) for row in await connection.execute(statement)]

    async def list_labels(self, prediction_ids: Collection[str]) -> Mapping[str, Sequence[EntryWithPayload]]:
        """Return the labels, oldest first, of those predictions that have any."""
        labels, entries = ledger_labels.c, ledger_entries.c
        same_entry = (entries.writer == labels.writer) & (entries.seq == labels.seq)
        statement = _select_with_payload().add_columns(labels.prediction).join(ledger_labels, same_entry)
        statement = statement.where(labels.prediction.in_(prediction_ids)).order_by(labels.id)
        labels_by_prediction = defaultdict[str, list[EntryWithPayload]](list)
        async with _reading(self._engine) as connection:
            for *row, prediction_id in await connection.execute(statement):
                labels_by_prediction[prediction_id].append(_read_row(row))
        return labels_by_prediction

    async def is_erased(self, entry_id: str) -> bool:
        """Whether the payload of the entry with that id was erased."""
        entries, erasures = ledger_entries.c, ledger_erasures.c
        same_entry = (entries.writer == erasures.writer) & (entries.seq == erasures.seq)
        statement = select(entries.id).join_from(ledger_entries, ledger_erasures, same_entry)
        async with _reading(self._engine) as connection:
            return (await connection.execute(statement.where(entries.id == entry_id))).first() is not None

    async def is_pruned(self, entry_id: str) -> bool:
        """Whether entries were pruned and the id, which begins with its time, is older than all remaining entries.

        The result depends on the id alone, so it does not reveal whether such an entry existed.
        """
        async with _reading(self._engine) as connection:
            if (await connection.execute(select(ledger_stumps.c.writer).limit(1))).first() is None:
                return False
            oldest: str | None = (await connection.execute(select(func.min(ledger_entries.c.id)))).scalar_one()
        return oldest is None or entry_id < oldest

    async def find_previous_hash(self, entry: LedgerEntry) -> str | None:
        """Return the hash of the entry or stump that `entry` must follow, or None if both are missing."""
        if entry.seq == 1:
            return GENESIS
        statements = (
            select(table.c.hash).where(table.c.writer == entry.writer, table.c.seq == entry.seq - 1)
            for table in (ledger_entries, ledger_stumps)
        )
        async with _reading(self._engine) as connection:
            previous: str | None = (await connection.execute(union(*statements))).scalar()
        return previous


def _select_with_payload() -> Select[Any]:
    entries, payloads = ledger_entries.c, ledger_payloads.c
    same_entry = (entries.writer == payloads.writer) & (entries.seq == payloads.seq)
    columns = payloads.principal, payloads.model, payloads.status, payloads.salt, payloads.document
    return select(*entries, *columns).join_from(ledger_payloads, ledger_entries, same_entry)


def _read_row(row: Any) -> EntryWithPayload:
    return EntryWithPayload(LedgerEntry(*row[:6]), Payload(*row[6:]))


@asynccontextmanager
async def _reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with reading(engine, strict=True) as connection:
            yield connection
    except DatabaseUnavailable as error:
        raise LedgerUnavailable from error

"""The record's rows: appended under the lock of one head row, so that all processes write one chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.audit.chain import Anchor, Finding, check_chain
from monitoring.audit.events import (
    NAME_LENGTH,
    PRUNED,
    Entry,
    Event,
    entry_from,
    entry_of,
    new_event,
    pruned_detail,
    safe_text,
    written_time,
)
from monitoring.audit.tables import audit_events, audit_head
from monitoring.errors import AuditUnavailable
from storage.errors import DatabaseUnavailable
from storage.transactions import reading, writing

_CHUNK = 500
_THE_HEAD = audit_head.c.id == 1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are asked for; what is None does not matter. `since` counts in, `until` does not."""

    event: str | None = None
    outcome: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        columns = audit_events.c
        if self.event is not None:
            yield columns.event == safe_text(self.event, NAME_LENGTH)
        if self.outcome is not None:
            yield columns.outcome == safe_text(self.outcome, NAME_LENGTH)
        if self.actor is not None:
            yield columns.actor == safe_text(self.actor, NAME_LENGTH)
        if self.since is not None:
            yield columns.at >= written_time(self.since)
        if self.until is not None:
            yield columns.at < written_time(self.until)


class AuditStore:
    """Every method raises AuditUnavailable while the database is unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def append(self, events: Sequence[Event]) -> None:
        """Add entries in a transaction of their own; they are durable once this returns."""
        async with _or_unavailable(writing(self._engine, strict=True)) as connection:
            await _append(connection, events, await _locked_head(connection))

    async def newest(self, wanted: Filter, limit: int, before: int | None = None) -> Sequence[Entry]:
        """Return at most `limit` entries, newest first, and only those with a `seq` below `before`."""
        statement = _select(wanted).order_by(audit_events.c.seq.desc()).limit(limit)
        if before is not None:
            statement = statement.where(audit_events.c.seq < before)
        async with _or_unavailable(reading(self._engine, strict=True)) as connection:
            return [entry_from(row) for row in await connection.execute(statement)]

    async def every(self, wanted: Filter) -> AsyncIterator[Entry]:
        """Oldest first, however many there are; read in parts, so that no transaction stays open meanwhile."""
        seen = 0
        while True:
            statement = _select(wanted).where(audit_events.c.seq > seen).order_by(audit_events.c.seq).limit(_CHUNK)
            async with _or_unavailable(reading(self._engine, strict=True)) as connection:
                entries = [entry_from(row) for row in await connection.execute(statement)]
            for entry in entries:
                yield entry
            if len(entries) < _CHUNK:
                return
            seen = entries[-1].seq

    async def verify(self, anchor: Anchor | None = None) -> Finding:
        """Check the whole chain, and that it holds the entry that was noted earlier."""
        async with _or_unavailable(reading(self._engine, strict=True)) as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            return await check_chain(connection, anchor)

    async def prune(self, before: datetime, actor: str) -> int:
        """Remove the oldest entries, up to the first that is not older than `before`; returns how many.

        The hash of the last one removed stays behind, and the removal is an entry itself: the rest still verifies.
        """
        columns = audit_events.c
        async with _or_unavailable(writing(self._engine, strict=True)) as connection:
            head = await _locked_head(connection)
            kept = select(func.min(columns.seq)).where(columns.at >= written_time(before))
            first_kept = (await connection.execute(kept)).scalar_one()
            last = head.seq if first_kept is None else first_kept - 1
            if last <= head.pruned_seq:
                return 0
            digest = (await connection.execute(select(columns.hash).where(columns.seq == last))).scalar_one()
            await connection.execute(delete(audit_events).where(columns.seq <= last))
            moved = {"pruned_seq": last, "pruned_hash": digest}
            await connection.execute(update(audit_head).where(_THE_HEAD).values(**moved))
            await _append(connection, [new_event(*PRUNED, actor=actor, detail=pruned_detail(last, digest))], head)
            removed: int = last - head.pruned_seq
            return removed


async def _locked_head(connection: AsyncConnection) -> Row[Any]:
    """The end of the chain, which nobody else moves until the transaction ends. Raises AuditUnavailable."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    row = (await connection.execute(select(audit_head).where(_THE_HEAD).with_for_update())).one_or_none()
    if row is None:
        raise AuditUnavailable
    return row


async def _append(connection: AsyncConnection, events: Sequence[Event], head: Row[Any]) -> None:
    seq, previous, rows = head.seq, head.hash, []
    for event in events:
        seq += 1
        entry = entry_of(event, seq, previous)
        previous = entry.hash
        rows.append(asdict(entry))
    await connection.execute(insert(audit_events), rows)
    await connection.execute(update(audit_head).where(_THE_HEAD).values(seq=seq, hash=previous))


def _select(wanted: Filter) -> Select[Any]:
    return select(audit_events).where(*wanted.conditions())


@asynccontextmanager
async def _or_unavailable(
    transaction: AbstractAsyncContextManager[AsyncConnection],
) -> AsyncIterator[AsyncConnection]:
    try:
        async with transaction as connection:
            yield connection
    except DatabaseUnavailable as error:
        raise AuditUnavailable from error

"""Reads and writes the audit log. All processes append to one chain, under the lock of its head row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.audit.erasure import ERASED, ERASED_DETAIL, ERASURE_CHUNK, build_record, erase_content
from monitoring.audit.events import (
    NAME_LENGTH,
    PRUNED,
    AuditEntry,
    AuditEvent,
    build_entry,
    build_pruned_detail,
    new_event,
    read_entry,
    sanitize,
)
from monitoring.audit.tables import audit_events, audit_head
from monitoring.audit.verification import verify_chain, verify_oldest
from monitoring.chains.anchors import Anchor
from monitoring.chains.reports import VerificationReport
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import AuditUnavailable
from storage.errors import DatabaseUnavailable
from storage.transactions import database_errors, reading, writing

_CHUNK = 500
_PRUNED_AT_ONCE = 5000
_HEAD = audit_head.c.id == 1


class AuditFilter(Struct, frozen=True):
    """Selects entries; a field that is None selects all. `since` is inclusive, `until` exclusive."""

    event: str | None = None
    outcome: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        columns = audit_events.c
        if self.event is not None:
            yield columns.event == sanitize(self.event, NAME_LENGTH)
        if self.outcome is not None:
            yield columns.outcome == sanitize(self.outcome, NAME_LENGTH)
        if self.actor is not None:
            yield columns.actor == sanitize(self.actor, NAME_LENGTH)
        if self.since is not None:
            yield columns.at >= format_timestamp(self.since)
        if self.until is not None:
            yield columns.at < format_timestamp(self.until)


class AuditStore:
    """Every method raises AuditUnavailable while the database is unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Add entries in a transaction of their own; they are durable once this returns."""
        async with _audit_errors(writing(self._engine, strict=True)) as connection:
            await _append(connection, events, await _lock_head(connection))

    async def list_newest(self, selected: AuditFilter, limit: int, before: int | None = None) -> Sequence[AuditEntry]:
        """Return at most `limit` entries, newest first; if `before` is given, only entries with a lower `seq`."""
        statement = _select(selected).order_by(audit_events.c.seq.desc()).limit(limit)
        if before is not None:
            statement = statement.where(audit_events.c.seq < before)
        async with _audit_errors(reading(self._engine, strict=True)) as connection:
            return [read_entry(row) for row in await connection.execute(statement)]

    async def iterate(self, selected: AuditFilter) -> AsyncIterator[AuditEntry]:
        """Yield all selected entries, oldest first; each chunk is read in a short transaction of its own."""
        last_seq = 0
        while True:
            statement = (
                _select(selected).where(audit_events.c.seq > last_seq).order_by(audit_events.c.seq).limit(_CHUNK)
            )
            async with _audit_errors(reading(self._engine, strict=True)) as connection:
                entries = [read_entry(row) for row in await connection.execute(statement)]
            for entry in entries:
                yield entry
            if len(entries) < _CHUNK:
                return
            last_seq = entries[-1].seq

    async def verify(self, anchor: Anchor | None = None) -> VerificationReport:
        """Verify the whole chain, and that it contains the anchor."""
        engine = self._engine
        if engine.dialect.name == "postgresql":  # SQLite's transactions always see one snapshot
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        async with _audit_errors(reading(engine, strict=True)) as connection:
            return await verify_chain(connection, anchor)

    async def count_older(self, before: datetime) -> int:
        """Return how many entries `prune` would remove."""
        pruned, last = await self._find_older(before)
        return max(0, last - pruned)

    async def erase(self, subject: str, actor: str) -> int:
        """Erase addresses, request ids and details from a person's entries; return the number of entries.

        New entries record the erasure by `actor`, so that the log still verifies. See monitoring/audit/erasure.py.
        """
        total, last = 0, 0
        while True:
            async with _audit_errors(writing(self._engine, strict=True)) as connection:
                chunk = await _erase_chunk(connection, subject, actor, last)
            if not chunk:
                return total
            total, last = total + sum(entry.is_intact() for entry in chunk), chunk[-1].seq

    async def prune(self, before: datetime, actor: str) -> int:
        """Remove all entries before the first one that is not older than `before`; return their number.

        The head keeps the hash of the last removed entry, and new entries record the removal, so that the remaining
        entries still verify. Raises AuditDamaged if an entry to be removed, or the record of an earlier removal, does
        not verify: the removal would hide that.
        """
        _, last = await self._find_older(before)
        total = 0
        while removed := await self._prune_chunk(last, actor):
            total += removed
        return total

    async def _find_older(self, before: datetime) -> tuple[int, int]:
        """Return the numbers of the last pruned entry and of the last entry older than `before`."""
        async with _audit_errors(reading(self._engine, strict=True)) as connection:
            head = (await connection.execute(select(audit_head).where(_HEAD))).one_or_none()
            if head is None:
                raise AuditUnavailable
            return int(head.pruned_seq), await _find_last_older(connection, head, before)

    async def _prune_chunk(self, last: int, actor: str) -> int:
        """Remove at most _PRUNED_AT_ONCE entries up to `last` in one transaction; return their number.

        The limit keeps the transaction short, because all writers wait for it.
        """
        async with _audit_errors(writing(self._engine, strict=True)) as connection:
            head = await _lock_head(connection)
            last = min(last, head.pruned_seq + _PRUNED_AT_ONCE)
            if last <= head.pruned_seq:
                return 0
            digest = await verify_oldest(connection, head, last)
            await connection.execute(delete(audit_events).where(audit_events.c.seq <= last))
            await connection.execute(update(audit_head).where(_HEAD).values(pruned_seq=last, pruned_hash=digest))
            await _append(connection, [new_event(*PRUNED, actor=actor, detail=build_pruned_detail(last, digest))], head)
            removed: int = last - head.pruned_seq
            return removed


async def append_within(connection: AsyncConnection, events: Sequence[AuditEvent]) -> None:
    """Add entries within a transaction of another store. The commit makes them durable.

    They must be its last statements, because all other writers wait until it ends. Raises AuditUnavailable, after which
    the transaction must be rolled back.
    """
    try:
        with database_errors(connection.engine.url, strict=True):
            await _append(connection, events, await _lock_head(connection))
    except DatabaseUnavailable as error:
        raise AuditUnavailable from error


async def _erase_chunk(connection: AsyncConnection, subject: str, actor: str, after: int) -> Sequence[AuditEntry]:
    """Erase the person's next entries, and return them in their original form.

    A manipulated entry is kept: erasing it would hide the manipulation from verification.
    """
    columns = audit_events.c
    head = await _lock_head(connection)
    own = columns.actor == subject, columns.event != ERASED[0], columns.detail != ERASED_DETAIL, columns.seq > after
    statement = select(audit_events).where(*own).order_by(columns.seq).limit(ERASURE_CHUNK)
    entries = [read_entry(row) for row in await connection.execute(statement)]
    erased = [erase_content(entry) for entry in entries if entry.is_intact()]
    for entry in erased:
        changed = {"address": entry.address, "request_id": entry.request_id, "detail": entry.detail}
        await connection.execute(update(audit_events).where(columns.seq == entry.seq).values(**changed))
    if erased:
        await _append(connection, [build_record(erased, subject, actor)], head)
    return entries


async def _find_last_older(connection: AsyncConnection, head: Row[Any], before: datetime) -> int:
    """Return the number of the last entry before the first one that is not older than `before`."""
    not_older = select(func.min(audit_events.c.seq)).where(audit_events.c.at >= format_timestamp(before))
    first_kept = (await connection.execute(not_older)).scalar_one()
    return int(head.seq if first_kept is None else first_kept - 1)


async def _lock_head(connection: AsyncConnection) -> Row[Any]:
    """Read the end of the chain and lock it until the transaction ends. Raises AuditUnavailable."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    row = (await connection.execute(select(audit_head).where(_HEAD).with_for_update())).one_or_none()
    if row is None:
        raise AuditUnavailable
    return row


async def _append(connection: AsyncConnection, events: Sequence[AuditEvent], head: Row[Any]) -> None:
    seq, previous, rows = head.seq, head.hash, []
    for event in events:
        seq += 1
        entry = build_entry(event, seq, previous)
        previous = entry.hash
        rows.append(asdict(entry))
    await connection.execute(insert(audit_events), rows)
    await connection.execute(update(audit_head).where(_HEAD).values(seq=seq, hash=previous))


def _select(selected: AuditFilter) -> Select[Any]:
    return select(audit_events).where(*selected.conditions())


@asynccontextmanager
async def _audit_errors(
    transaction: AbstractAsyncContextManager[AsyncConnection],
) -> AsyncIterator[AsyncConnection]:
    try:
        async with transaction as connection:
            yield connection
    except DatabaseUnavailable as error:
        raise AuditUnavailable from error

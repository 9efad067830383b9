"""Selecting the records of an export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Column, Connection, Select, func, select

from monitoring.chains.anchors import GENESIS
from monitoring.ledger.entries import Checkpoint, Claim, Stump, parse_claims, sanitize_name
from monitoring.ledger.records import (
    EntryRecord,
    Orphan,
    Record,
    StreamHeader,
    WindowStart,
    read_checkpoints,
    read_entries,
    read_head,
    read_records,
)
from monitoring.ledger.tables import ledger_entries, ledger_heads, ledger_stumps


def select_records(connection: Connection, header: StreamHeader) -> Iterator[Record]:
    """Yield the records that match the header's filters, and those needed to verify them, without their payloads."""
    records = _read_window(connection, header) if header.has_window else read_records(connection)
    for record in records:
        if isinstance(record, StreamHeader):
            yield header
        elif isinstance(record, EntryRecord):
            yield record if _matches(record, header) else replace(record, payload=None)
        elif not isinstance(record, Orphan):
            yield record


def count_entries(connection: Connection, header: StreamHeader) -> int:
    """Return the approximate number of entries in an export."""
    statement = select(func.count()).select_from(ledger_entries).where(ledger_entries.c.at >= header.since)
    if header.until:
        statement = statement.where(ledger_entries.c.at < header.until)
    return connection.execute(statement).scalar_one()


def is_recorded(connection: Connection, column: Column[str], name: str) -> bool:
    """Whether a payload has that name in its column `principal` or `model`."""
    statement = select(column).where(column == sanitize_name(name)).limit(1)
    return connection.execute(statement).first() is not None


def _matches(record: EntryRecord, header: StreamHeader) -> bool:
    payload, at = record.payload, record.entry.at
    if payload is None:
        return True
    in_window = at >= header.since and (not header.until or at < header.until)
    return in_window and header.principal in ("", payload.principal) and header.model in ("", payload.model)


def _read_window(connection: Connection, header: StreamHeader) -> Iterator[Record]:
    """Yield each chain's piece in the window, extended to the next entry that a checkpoint names, or to the head."""
    yield header
    pieces = {row.writer: (row.first, row.last) for row in connection.execute(_select_pieces(header))}
    ends: dict[str, int] = {}
    for checkpoint in read_checkpoints(connection):
        needed = False
        for claim in _read_claims(checkpoint):
            if claim.writer in pieces and claim.writer not in ends and claim.seq >= pieces[claim.writer][1]:
                ends[claim.writer], needed = claim.seq, True
        if needed:
            yield checkpoint
    for writer, (first, _) in sorted(pieces.items()):
        yield from _read_piece(connection, writer, first, ends.get(writer))


def _read_piece(connection: Connection, writer: str, first: int, end: int | None) -> Iterator[Record]:
    yield from _read_start(connection, writer, first - 1)
    for record in read_entries(connection, writer, first - 1):
        yield record
        if isinstance(record, EntryRecord) and record.entry.seq == end:
            return
    row = connection.execute(select(ledger_heads).where(ledger_heads.c.writer == writer)).one_or_none()
    if row is not None:  # the verification of the export reports a missing head
        yield read_head(row)


def _read_claims(checkpoint: Checkpoint) -> list[Claim]:
    """Return the claims, or an empty list if they were changed: the verification of the export reports it."""
    try:
        return parse_claims(checkpoint.heads)
    except ValueError:
        return []


def _select_pieces(header: StreamHeader) -> Select[Any]:
    columns = ledger_entries.c
    statement = select(columns.writer, func.min(columns.seq).label("first"), func.max(columns.seq).label("last"))
    statement = statement.where(columns.at >= header.since).group_by(columns.writer)
    return statement.where(columns.at < header.until) if header.until else statement


def _read_start(connection: Connection, writer: str, seq: int) -> Iterator[Record]:
    """Yield the record that names the entry before a piece; `seq` is the number of that entry."""
    stump = connection.execute(select(ledger_stumps).where(ledger_stumps.c.writer == writer)).one_or_none()
    if stump is not None and stump.seq == seq:
        yield Stump(*stump)
    elif seq > 0:
        key = ledger_entries.c.writer == writer, ledger_entries.c.seq == seq
        digest = connection.execute(select(ledger_entries.c.hash).where(*key)).scalar_one_or_none()
        yield WindowStart(writer, seq, digest or GENESIS)

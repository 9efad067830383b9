"""A ledger as one stream of records, from a database or from an export, for whoever checks or copies it.

The order: header, the checkpoints' stump, the checkpoints; then for each writer its stump or cut, its lines, its head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from monitoring.ledger.entries import CHECKPOINTS, Checkpoint, Entry, Erasure, Head, Payload, Stump, parse_claims
from monitoring.ledger.tables import (
    ledger_checkpoints,
    ledger_entries,
    ledger_erasures,
    ledger_heads,
    ledger_payloads,
    ledger_stumps,
)

FORMAT = "atalaya-ledger-1"
_CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Header:
    """What a stream holds. The filters are empty for a whole ledger; a window of time cuts the chains."""

    format: str = FORMAT
    since: str = ""
    until: str = ""
    principal: str = ""
    model: str = ""

    @property
    def cut(self) -> bool:
        return bool(self.since or self.until)

    @property
    def withholds(self) -> bool:
        """Whether entries may come without their payloads."""
        return bool(self.cut or self.principal or self.model)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where an export begins in a chain: after this entry, which it does not hold."""

    writer: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Line:
    """An entry with its payload, or with the word that this was erased, or with neither where it is withheld."""

    entry: Entry
    payload: Payload | None
    erasure: Erasure | None


@dataclass(frozen=True, slots=True)
class Orphan:
    """What belongs to no entry; only a database can hold it. `what` is "payload", "erasure" or "claim".

    The last is a head's note of the entry that a checkpoint has named last, where none has.
    """

    writer: str
    seq: int
    what: str


Record = Header | Stump | Checkpoint | Cut | Line | Head | Orphan


def records_in(connection: Connection) -> Iterator[Record]:
    """Everything in the database, in flat memory; the transaction should be one that sees no later changes."""
    yield Header()
    stumps = {row.writer: Stump(*row) for row in connection.execute(select(ledger_stumps))}
    if CHECKPOINTS in stumps:
        yield stumps[CHECKPOINTS]
    claimed: dict[str, int] = {}
    for checkpoint in checkpoints_in(connection):
        yield checkpoint
        with suppress(ValueError):  # whoever checks finds that, too
            claimed |= {claim.writer: claim.seq for claim in parse_claims(checkpoint.heads)}
    heads = {row.writer: row for row in connection.execute(select(ledger_heads))}
    for writer in sorted(heads.keys() | writers_in(connection) | stumps.keys() - {CHECKPOINTS}, key=str):
        if writer in stumps:
            yield stumps[writer]
        yield from lines_in(connection, writer)
        if writer in heads:
            yield read_head(heads[writer])
            told, pruned = heads[writer].claimed, stumps[writer].seq if writer in stumps else 0
            # The checkpoint that named a pruned entry may be gone, too.
            if told != claimed[writer] if writer in claimed else told not in range(pruned + 1):
                yield Orphan(writer, told, "claim")


def read_head(row: Any) -> Head:
    return Head(row.writer, row.seq, row.hash, row.checkpoint, row.key, row.signature)


def checkpoints_in(connection: Connection) -> Iterator[Checkpoint]:
    """All of them, in the order of their numbers, whatever these are."""
    page = checkpoints_after(connection, None, _CHUNK)
    while page:
        yield from page
        page = checkpoints_after(connection, page[-1].number, _CHUNK)


def checkpoints_after(connection: Connection, number: int | None, count: int) -> Sequence[Checkpoint]:
    """The first ones, or those with a greater number."""
    wanted = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number).limit(count)
    wanted = wanted if number is None else wanted.where(ledger_checkpoints.c.number > number)
    return [Checkpoint(*row) for row in connection.execute(wanted)]


def lines_in(connection: Connection, writer: str, after: int | None = None) -> Iterator[Line | Orphan]:
    """A writer's entries, whatever their numbers are, each with what belongs to it; and what belongs to none.

    Or only those with a greater number than `after`.
    """
    while True:
        entries = connection.execute(_part(ledger_entries, writer, after).limit(_CHUNK)).all()
        last = entries[-1].seq if len(entries) == _CHUNK else None
        payloads, erasures = (
            {row.seq: row for row in connection.execute(_part(table, writer, after, last))}
            for table in (ledger_payloads, ledger_erasures)
        )
        for row in entries:
            entry = Entry(*row)
            payload, erasure = payloads.get(entry.seq), erasures.pop(entry.seq, None)
            if payload is not None and payload[2] == entry.id:
                del payloads[entry.seq]
            else:
                payload = None
            yield Line(
                entry,
                Payload(*payload[3:]) if payload else None,
                Erasure(*erasure[2:]) if erasure else None,
            )
        yield from (Orphan(writer, seq, "payload") for seq in payloads)
        yield from (Orphan(writer, seq, "erasure") for seq in erasures)
        if last is None:
            return
        after = last


def _part(table: Any, writer: str, after: int | None, last: int | None = None) -> Select[Any]:
    wanted = select(table).where(table.c.writer == writer).order_by(table.c.seq)
    wanted = wanted if after is None else wanted.where(table.c.seq > after)
    return wanted if last is None else wanted.where(table.c.seq <= last)


def writers_in(connection: Connection) -> set[str]:
    """Who has rows of any kind: found by jumping from one writer to the next in the index."""
    found: set[str] = set()
    for table in (ledger_entries, ledger_payloads, ledger_erasures):
        first = select(table.c.writer).order_by(table.c.writer).limit(1)
        wanted = first
        while row := connection.execute(wanted).first():
            found.add(row.writer)
            wanted = first.where(table.c.writer > row.writer)
    return found

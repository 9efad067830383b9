"""A ledger as one stream of records, read from a database or an export, to be verified or copied.

The order: header; the checkpoints' stump, the checkpoints; then for each writer its stump or window start, its entries
and its head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Row, Select, select

from monitoring.ledger.entries import (
    CHECKPOINTS,
    Checkpoint,
    EntryWithPayload,
    Erasure,
    Head,
    LedgerEntry,
    Payload,
    Stump,
    parse_claims,
)
from monitoring.ledger.tables import (
    ledger_checkpoints,
    ledger_entries,
    ledger_erasures,
    ledger_heads,
    ledger_labels,
    ledger_payloads,
    ledger_stumps,
)
from monitoring.ledger.writing.labels import build_label_row, is_label

FORMAT = "atalaya-ledger-1"
_CHUNK = 2000


class StreamHeader(Struct, frozen=True):
    """What a stream was filtered by. All filters are empty for a whole ledger."""

    format: str = FORMAT
    since: str = ""
    until: str = ""
    principal: str = ""
    model: str = ""

    @property
    def has_window(self) -> bool:
        """Whether the stream contains only a piece of each chain."""
        return bool(self.since or self.until)

    @property
    def withholds_payloads(self) -> bool:
        """Whether entries may come without their payloads."""
        return bool(self.has_window or self.principal or self.model)


class WindowStart(Struct, frozen=True):
    """The last entry of a chain before the piece that a window contains."""

    writer: str
    seq: int
    hash: str


class EntryRecord(Struct, frozen=True):
    """An entry with its payload or its erasure, or with neither if the payload is withheld."""

    entry: LedgerEntry
    payload: Payload | None
    erasure: Erasure | None


class Orphan(Struct, frozen=True):
    """A row in the database that belongs to no entry. `kind` is "payload", "erasure", "label" or "claim".

    A "label" may also be a row that contradicts its entry, or that is missing. A "claim" is the column `claimed` of a
    head if it contradicts the checkpoints.
    """

    writer: str
    seq: int
    kind: str


Record = StreamHeader | Stump | Checkpoint | WindowStart | EntryRecord | Head | Orphan


def read_records(connection: Connection) -> Iterator[Record]:
    """Yield everything in the database, in memory that grows only with the number of writers.

    The transaction should see a single snapshot.
    """
    yield StreamHeader()
    stumps = {row.writer: Stump(*row) for row in connection.execute(select(ledger_stumps))}
    if CHECKPOINTS in stumps:
        yield stumps[CHECKPOINTS]
    claimed: dict[str, int] = {}
    for checkpoint in read_checkpoints(connection):
        yield checkpoint
        with suppress(ValueError):  # the verification reports it
            claimed |= {claim.writer: claim.seq for claim in parse_claims(checkpoint.heads)}
    heads = {row.writer: row for row in connection.execute(select(ledger_heads))}
    with_labels = connection.dialect.has_table(connection, ledger_labels.name)  # earlier releases have none
    for writer in sorted(heads.keys() | find_writers(connection) | stumps.keys() - {CHECKPOINTS}, key=str):
        if writer in stumps:
            yield stumps[writer]
        yield from read_entries(connection, writer, with_labels=with_labels)
        if writer in heads:
            head = heads[writer]
            yield read_head(head)
            pruned = stumps[writer].seq if writer in stumps else 0
            if _contradicts(head.claimed, claimed.get(writer), pruned):
                yield Orphan(writer, head.claimed, "claim")


def _contradicts(claim: int, named: int | None, pruned: int) -> bool:
    """Return whether a head claims another entry than `named`, the last one of this writer that a checkpoint names.

    If no checkpoint names one, the claim may be one of the `pruned` entries, whose checkpoint was pruned, too.
    """
    return claim not in range(pruned + 1) if named is None else claim != named


def read_head(row: Any) -> Head:
    return Head(row.writer, row.seq, row.hash, row.checkpoint, row.key, row.signature)


def read_checkpoints(connection: Connection) -> Iterator[Checkpoint]:
    """Yield all checkpoints in order of their numbers, including numbers below 1."""
    page = read_checkpoint_page(connection, None, _CHUNK)
    while page:
        yield from page
        page = read_checkpoint_page(connection, page[-1].number, _CHUNK)


def read_checkpoint_page(connection: Connection, after: int | None, count: int) -> Sequence[Checkpoint]:
    """Return the first `count` checkpoints, or the first ones with a number above `after`."""
    statement = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number).limit(count)
    if after is not None:
        statement = statement.where(ledger_checkpoints.c.number > after)
    return [Checkpoint(*row) for row in connection.execute(statement)]


def read_entries(
    connection: Connection, writer: str, after: int | None = None, *, with_labels: bool = False
) -> Iterator[EntryRecord | Orphan]:
    """Yield a writer's entries, whatever their numbers, or those with a number above `after`; and the writer's orphans.

    Orphaned rows of labels are found only `with_labels`.
    """
    while True:
        entries = connection.execute(_select_range(ledger_entries, writer, after).limit(_CHUNK)).all()
        last = entries[-1].seq if len(entries) == _CHUNK else None
        payloads, erasures, labels = (
            {row.seq: row for row in connection.execute(_select_range(table, writer, after, last))} if wanted else {}
            for table, wanted in ((ledger_payloads, True), (ledger_erasures, True), (ledger_labels, with_labels))
        )
        for row in entries:
            record = _make_record(LedgerEntry(*row), payloads, erasures)
            yield record
            if with_labels and not _has_label_row(record, labels.pop(row.seq, None)):
                yield Orphan(writer, row.seq, "label")
        yield from (Orphan(writer, seq, "payload") for seq in payloads)
        yield from (Orphan(writer, seq, "erasure") for seq in erasures)
        yield from (Orphan(writer, seq, "label") for seq in labels)
        if last is None:
            return
        after = last


def _make_record(entry: LedgerEntry, payloads: dict[int, Row[Any]], erasures: dict[int, Row[Any]]) -> EntryRecord:
    """Return the entry with what belongs to it, and remove those rows from `payloads` and `erasures`."""
    payload = None
    row = payloads.get(entry.seq)
    if row is not None and row.id == entry.id:
        del payloads[entry.seq]
        payload = Payload(row.principal, row.model, row.status, row.salt, row.document)
    row = erasures.pop(entry.seq, None)
    erasure = None if row is None else Erasure(row.at, row.key, row.signature)
    return EntryRecord(entry, payload, erasure)


def _has_label_row(record: EntryRecord, row: Row[Any] | None) -> bool:
    """Whether the entry has the row that it must have: that of its label, or none if the entry is not a label."""
    try:
        if record.payload is None or not is_label(record.payload):
            return row is None
        expected = build_label_row(EntryWithPayload(record.entry, record.payload))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return row is not None and dict(row._mapping) == expected


def _select_range(table: Any, writer: str, after: int | None, last: int | None = None) -> Select[Any]:
    statement = select(table).where(table.c.writer == writer).order_by(table.c.seq)
    statement = statement if after is None else statement.where(table.c.seq > after)
    return statement if last is None else statement.where(table.c.seq <= last)


def find_writers(connection: Connection) -> set[str]:
    """Return all writers that have entries, payloads or erasures, using a skip scan of the index."""
    writers: set[str] = set()
    for table in (ledger_entries, ledger_payloads, ledger_erasures):
        first = select(table.c.writer).order_by(table.c.writer).limit(1)
        statement = first
        while row := connection.execute(statement).first():
            writers.add(row.writer)
            statement = first.where(table.c.writer > row.writer)
    return writers

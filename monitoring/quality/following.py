"""Sums over the recorded requests, kept up to date in the background.

Updating the sums in each prediction's transaction would delay its caller. Instead, every process periodically reads the
entries that the chains have gained since the last update, and adds them to the sums. The transaction that writes the
sums also moves the recorded end of each chain's part in them, unless another process has moved it, so each entry is
counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Engine, func, select, update

from monitoring.chains.timestamps import get_hour, parse_timestamp
from monitoring.ledger.entries import NO_REQUEST
from monitoring.ledger.payloads import parse_json
from monitoring.ledger.tables import ledger_heads, ledger_payloads, prediction_sum_ends
from monitoring.ledger.transactions import exclude_upkeep, ledger_errors
from storage.engine import dialect_insert
from storage.transactions import WRITING

CHUNK = 100  # entries per transaction


class RecordedRequest(Struct, frozen=True):
    """The document of an entry, and its time. The document may have been manipulated, but its time is valid.

    `hour` looks like 2026-11-03T09.
    """

    document: Mapping[str, Any]
    at: datetime
    hour: str


WriteSums = Callable[[Connection], None]
"""Writes what requests add to some sums, in the given write transaction.

Predictions cannot be recorded in SQLite meanwhile, so anything that can be computed before should be. It must change
rows in a fixed order, so that two processes cannot deadlock.
"""

AddRequests = Callable[[Connection, Sequence[RecordedRequest]], WriteSums]
"""Computes what requests add to some sums, and returns the function that writes it.

It may read from the given transaction, but must not lock or write. It must not raise errors for changed documents.
"""


class _Chunk(Struct, frozen=True):
    """Part of a chain: the documents of requests, the number of all payloads, and the last entry that it covers."""

    documents: Sequence[str]
    payloads: int
    end: int


class SumUpdater:
    """Reads and counts each entry once, for all sums. Every method raises LedgerUnavailable.

    Use `engine` from one thread at a time. `sums` must contain all sums in the database: each entry is read only once,
    so a sum that is omitted here would never include it.
    """

    def __init__(self, engine: Engine, sums: Sequence[AddRequests]) -> None:
        self._reading = engine
        self._writing = engine.execution_options(**WRITING)
        self._sums = sums

    def update(self) -> Iterator[None]:
        """Add all new entries, in short transactions; yield after each of them."""
        for writer, start, end in self._find_grown():
            after = start
            while after < end:
                with ledger_errors(self._reading.url), self._reading.begin() as connection:
                    chunk = self._read_chunk(connection, writer, after, end)
                requests = parse_requests(chunk.documents)
                with ledger_errors(self._reading.url), self._reading.begin() as connection:
                    writes = self._add(connection, requests)
                if not self._write(writer, after, chunk, writes):
                    break  # another process is adding this chain
                after = chunk.end
                yield

    def _find_grown(self) -> Sequence[tuple[str, int, int]]:
        """Return the chains with uncounted entries: the writer, its last counted entry, and the end of the chain."""
        heads, ends = ledger_heads.c, prediction_sum_ends.c
        after = func.coalesce(ends.seq, 0)
        joined = select(heads.writer, after, heads.seq).join_from(
            ledger_heads, prediction_sum_ends, heads.writer == ends.writer, isouter=True
        )
        with ledger_errors(self._reading.url), self._reading.begin() as connection:
            return [tuple(row) for row in connection.execute(joined.where(heads.seq > after))]

    def _read_chunk(self, connection: Connection, writer: str, after: int, end: int) -> _Chunk:
        """Return the next documents of a chain that are not erased."""
        columns = ledger_payloads.c
        statement = select(columns.seq, columns.status, columns.document).where(
            columns.writer == writer, columns.seq > after, columns.seq <= end
        )
        rows = connection.execute(statement.order_by(columns.seq).limit(CHUNK)).all()
        documents = [row.document for row in rows if row.status != NO_REQUEST]
        return _Chunk(documents, len(rows), rows[-1].seq if len(rows) == CHUNK else end)

    def _add(self, connection: Connection, requests: Sequence[RecordedRequest]) -> Sequence[WriteSums]:
        return [add(connection, requests) for add in self._sums]

    def _write(self, writer: str, after: int, chunk: _Chunk, writes: Sequence[WriteSums]) -> bool:
        """Write the sums with a chunk. Returns False, and changes nothing, if another process has counted it."""
        with ledger_errors(self._writing.url), self._writing.begin() as connection:
            exclude_upkeep(connection)
            if not self._move_end(connection, writer, after, chunk.end):
                return False
            if not self._is_complete(connection, writer, after, chunk):
                chunk = self._read_chunk(connection, writer, after, chunk.end)
                writes = self._add(connection, parse_requests(chunk.documents))
            for write in writes:
                write(connection)
            return True

    def _is_complete(self, connection: Connection, writer: str, after: int, chunk: _Chunk) -> bool:
        """Whether all payloads still exist. Erasure removes a person's sums last, and none may be added after that."""
        columns = ledger_payloads.c
        count = select(func.count()).select_from(ledger_payloads)
        kept = count.where(columns.writer == writer, columns.seq > after, columns.seq <= chunk.end)
        return connection.execute(kept).scalar_one() == chunk.payloads

    def _move_end(self, connection: Connection, writer: str, after: int, through: int) -> bool:
        start = dialect_insert(prediction_sum_ends, connection.dialect).values(writer=writer, seq=0)
        connection.execute(start.on_conflict_do_nothing())
        ends = prediction_sum_ends.c
        moved = update(prediction_sum_ends).where(ends.writer == writer, ends.seq == after).values(seq=through)
        return connection.execute(moved).rowcount == 1


def parse_requests(documents: Iterable[str]) -> Sequence[RecordedRequest]:
    """Parse the documents, except those without a valid time: `atalaya ledger verify` reports changed ones."""
    return list(_iterate_requests(documents))


def _iterate_requests(documents: Iterable[str]) -> Iterator[RecordedRequest]:
    for document in documents:
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            facts = parse_json(document)
            yield RecordedRequest(facts, parse_timestamp(facts["at"]), get_hour(facts["at"]))

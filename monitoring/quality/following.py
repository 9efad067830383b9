"""Sums over the recorded requests, kept up to date in the background.

Adding a row to each prediction's transaction would cost its caller time. Instead, every process now and then reads what
the chains have gained since the sums were last updated, and adds it. The end of each chain's part in the sums moves in
the same transaction, and only from where it was read, so that several processes count each entry once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, Table, func, select, update

from monitoring.ledger.entries import NO_REQUEST
from monitoring.ledger.tables import ledger_heads, ledger_payloads
from monitoring.ledger.transactions import exclude_upkeep, ledger_errors
from storage.engine import dialect_insert
from storage.transactions import WRITING

CHUNK = 100  # entries in a transaction: while it lasts, SQLite lets no other one write

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Part of a chain: the documents of requests, the number of all payloads, and the last entry that it covers."""

    documents: Sequence[str]
    payloads: int
    end: int


class ChainFollower(ABC, Generic[S]):
    """Uses `engine` from one thread at a time. Methods raise LedgerUnavailable.

    `ends` is a table with the last entry (`seq`) of each chain (`writer`) that is part of the sums.
    """

    def __init__(self, engine: Engine, ends: Table) -> None:
        self._reading = engine
        self._writing = engine.execution_options(**WRITING)
        self._ends = ends

    @abstractmethod
    def sum_up(self, documents: Iterable[str]) -> S:
        """Return the sums over the documents of requests, some of which may have been changed."""

    @abstractmethod
    def add(self, connection: Connection, sums: S) -> None:
        """Add to the rows in the database, in one order: otherwise two processes may wait for each other."""

    def update(self) -> Iterator[None]:
        """Add everything that is recorded, in short transactions; yield after each of them."""
        for writer, start, end in self._find_grown():
            after = start
            while after < end:
                with ledger_errors(self._reading.url), self._reading.begin() as connection:
                    chunk = self._read_chunk(connection, writer, after, end)
                if not self._add(writer, after, chunk, self.sum_up(chunk.documents)):
                    break  # another process is adding this chain
                after = chunk.end
                yield

    def _find_grown(self) -> Sequence[tuple[str, int, int]]:
        """Return the chains that are longer than their part in the sums: writer, end of that part, end of the chain."""
        heads, ends = ledger_heads.c, self._ends.c
        after = func.coalesce(ends.seq, 0)
        joined = select(heads.writer, after, heads.seq).join_from(
            ledger_heads, self._ends, heads.writer == ends.writer, isouter=True
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

    def _add(self, writer: str, after: int, chunk: _Chunk, sums: S) -> bool:
        """Add to the sums, unless another process has moved the end of the chain's part."""
        with ledger_errors(self._writing.url), self._writing.begin() as connection:
            exclude_upkeep(connection)
            if not self._move_end(connection, writer, after, chunk.end):
                return False
            if not self._is_complete(connection, writer, after, chunk):
                sums = self.sum_up(self._read_chunk(connection, writer, after, chunk.end).documents)
            self.add(connection, sums)
            return True

    def _is_complete(self, connection: Connection, writer: str, after: int, chunk: _Chunk) -> bool:
        """Whether all payloads still exist. Erasure removes a person's sums last, and none may be added after that."""
        columns = ledger_payloads.c
        count = select(func.count()).select_from(ledger_payloads)
        kept = count.where(columns.writer == writer, columns.seq > after, columns.seq <= chunk.end)
        return connection.execute(kept).scalar_one() == chunk.payloads

    def _move_end(self, connection: Connection, writer: str, after: int, through: int) -> bool:
        start = dialect_insert(self._ends, connection.dialect).values(writer=writer, seq=0)
        connection.execute(start.on_conflict_do_nothing())
        ends = self._ends.c
        moved = update(self._ends).where(ends.writer == writer, ends.seq == after).values(seq=through)
        return connection.execute(moved).rowcount == 1

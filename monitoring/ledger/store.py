"""The ledger's rows: each transaction leaves a chain whose end is signed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, bindparam, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from monitoring.errors import LedgerUnavailable
from monitoring.ledger.entries import (
    GENESIS,
    Checkpoint,
    Claim,
    Entry,
    Head,
    Link,
    Payload,
    claims_text,
    written_time,
)
from monitoring.ledger.signing import Signer
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads, ledger_payloads

_CHECKPOINT_LOCK = 0x6C656467  # any number that every process of ours knows
_NEVER = -1

# Every batch executes them: made once, their compiled forms are found at once.
_ADD_ENTRIES, _ADD_PAYLOADS = insert(ledger_entries), insert(ledger_payloads)
_MOVE_HEAD = (
    update(ledger_heads)
    .where(ledger_heads.c.writer == bindparam("of"), ledger_heads.c.seq == bindparam("after"))
    .values({name: bindparam(name) for name in Head.__slots__})
)

log = structlog.get_logger("atalaya.ledger")


class OutOfStep(Exception):
    """The chain in the database does not end where this process left it."""


class LedgerStore:
    """One connection, used by one thread at a time; `engine` opens transactions that write.

    Every method raises LedgerUnavailable while the database is away, and leaves the transaction undone.
    """

    def __init__(
        self, engine: Engine, signer: Signer, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._connection: Connection | None = None
        self._checkpoint = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Durable once it is left without an error."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            with self._connection.begin():
                yield self._connection
        except (SQLAlchemyError, OSError) as error:
            self._disconnect()
            raise LedgerUnavailable from error

    def open_chain(self, writer: str) -> str:
        """Make a writer known, under a checkpoint that names it; returns the greatest id so far, or ""."""
        with self.transaction() as connection:
            _insert_head(connection, self._signed(Head(writer, 0, GENESIS, self._checkpoint)))
            checkpoint = self._write_checkpoint(connection)
            greatest: str | None = connection.execute(select(func.max(ledger_entries.c.id))).scalar_one()
        _tell(checkpoint)
        return greatest or ""

    def append(self, connection: Connection, links: Sequence[Link], after: int) -> None:
        """Add links of one chain, whose last entry must be number `after`. Raises OutOfStep."""
        if not links:
            return
        connection.execute(_ADD_ENTRIES, [_row(link.entry) for link in links])
        connection.execute(_ADD_PAYLOADS, [_payload_row(link) for link in links])
        last = links[-1].entry
        head = _row(self._signed(Head(last.writer, last.seq, last.hash, self._checkpoint)))
        if connection.execute(_MOVE_HEAD, {**head, "of": last.writer, "after": after}).rowcount != 1:
            raise OutOfStep

    def undelivered(self, connection: Connection, links: Sequence[Link]) -> Sequence[Link]:
        """Those of a chain's links that the database has not got; its end stays locked. Raises OutOfStep.

        A commit whose answer was lost may have succeeded: what it brought must not come twice.
        """
        writer = links[0].entry.writer
        wanted = select(ledger_heads.c.seq, ledger_heads.c.hash).where(ledger_heads.c.writer == writer)
        head = connection.execute(wanted.with_for_update()).one_or_none()
        if head is None or head.seq < links[0].entry.seq - 1:
            raise OutOfStep
        if any(link.entry.seq == head.seq and link.entry.hash != head.hash for link in links):
            raise OutOfStep
        return [link for link in links if link.entry.seq > head.seq]

    def known(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Which of the ids have an entry in any chain."""
        return set(connection.execute(select(ledger_entries.c.id).where(ledger_entries.c.id.in_(ids))).scalars())

    def checkpoint(self) -> None:
        """Bind together what all writers have written since the last checkpoint."""
        with self.transaction() as connection:
            checkpoint = self._write_checkpoint(connection)
        _tell(checkpoint)

    def check_writable(self) -> None:
        """Write something that changes nothing."""
        with self.transaction() as connection:
            connection.execute(update(ledger_heads).values(claimed=ledger_heads.c.claimed))

    def reach(self) -> None:
        """Connect anew and ask; any thread may."""
        try:
            with self._engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError) as error:
            raise LedgerUnavailable from error

    def break_off(self) -> None:
        """Make a transaction that PostgreSQL does not answer fail at once; any thread may."""
        connection = self._connection
        if connection is None or connection.dialect.name != "postgresql":
            return
        with suppress(Exception), socket.socket(fileno=os.dup(_descriptor(connection))) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._disconnect()
        self._engine.dispose()

    def _write_checkpoint(self, connection: Connection) -> Checkpoint | None:
        """None where no chain has moved."""
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHECKPOINT_LOCK})
        newest = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number.desc()).limit(1)
        last = connection.execute(newest).one_or_none()
        moved = connection.execute(select(ledger_heads).where(ledger_heads.c.seq > ledger_heads.c.claimed)).all()
        checkpoint = None
        if moved:
            checkpoint = self._next_checkpoint(last, moved)
            connection.execute(insert(ledger_checkpoints), _row(checkpoint))
            for row in moved:
                ours = ledger_heads.c.writer == row.writer
                connection.execute(update(ledger_heads).where(ours).values(claimed=row.seq))
            self._checkpoint = checkpoint.number
        return checkpoint

    def _next_checkpoint(self, last: Row[Any] | None, moved: Sequence[Row[Any]]) -> Checkpoint:
        number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
        heads = claims_text([Claim(row.writer, row.seq, row.hash) for row in moved])
        unsigned = Checkpoint(number, written_time(self._clock()), heads, previous, "", self._signer.key_id, "")
        signature = self._signer.sign(unsigned.text())
        return Checkpoint(number, unsigned.at, heads, previous, unsigned.computed_hash(), unsigned.key, signature)

    def _signed(self, head: Head) -> Head:
        return replace(head, key=self._signer.key_id, signature=self._signer.sign(head.text()))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError, OSError):
                connection.invalidate()
                connection.close()


def _tell(checkpoint: Checkpoint | None) -> None:
    """A log kept elsewhere is an anchor: whoever writes the ledger anew cannot rewrite that, too."""
    if checkpoint is not None:
        log.info("ledger_checkpoint", number=checkpoint.number, hash=checkpoint.hash)


def _insert_head(connection: Connection, head: Head) -> None:
    connection.execute(insert(ledger_heads), {**_row(head), "claimed": _NEVER})


def _payload_row(link: Link) -> dict[str, Any]:
    entry = link.entry
    return {"writer": entry.writer, "seq": entry.seq, "id": entry.id, **_row(link.payload)}


def _row(record: Entry | Payload | Head | Checkpoint) -> dict[str, Any]:
    """Its columns; `dataclasses.asdict` would copy what cannot change."""
    return {name: getattr(record, name) for name in record.__slots__}


def _descriptor(connection: Connection) -> int:
    driver: Any = connection.connection.dbapi_connection
    descriptor: int = driver.fileno()
    return descriptor

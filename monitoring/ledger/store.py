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
from sqlalchemy.exc import IntegrityError

from monitoring.chains.signing import Signer, Verifier
from monitoring.errors import LedgerUnavailable
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import (
    GENESIS,
    Checkpoint,
    Claim,
    Entry,
    Head,
    Link,
    Payload,
    format_claims,
    written_time,
)
from monitoring.ledger.records import read_head
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads, ledger_payloads
from monitoring.ledger.transactions import ledger_errors

_CHECKPOINT_LOCK = 0x6C656467  # any number that every process of ours knows
_NEVER = -1

# Every batch executes them: made once, their compiled forms are found at once.
_ADD_ENTRIES, _ADD_PAYLOADS = insert(ledger_entries), insert(ledger_payloads)
_MOVE_HEAD = (
    update(ledger_heads)
    .where(
        ledger_heads.c.writer == bindparam("of"),
        ledger_heads.c.seq == bindparam("after"),
        ledger_heads.c.hash == bindparam("onto"),
    )
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
        self._verifier = Verifier([signer.public_key])
        self._not_ours: set[str] = set()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Durable once it is left without an error. Raises OutOfStep where what is to be added is there already."""
        try:
            with ledger_errors():
                if self._connection is None:
                    self._connection = self._engine.connect()
                try:
                    with self._connection.begin():
                        yield self._connection
                except IntegrityError as error:
                    raise OutOfStep from error
        except LedgerUnavailable:
            self._disconnect()
            raise

    def open_chain(self, writer: str) -> str:
        """Make a writer known, under a checkpoint that names it; returns the greatest id so far, or ""."""
        with self.transaction() as connection:
            _insert_head(connection, self._signed(Head(writer, 0, GENESIS, self._checkpoint)))
            newest, checkpoint = self._write_checkpoint(connection)
            greatest: str | None = connection.execute(select(func.max(ledger_entries.c.id))).scalar_one()
        self._has_seen(newest, checkpoint)
        return greatest or ""

    def append(self, connection: Connection, links: Sequence[Link], chain: Chain) -> None:
        """Add links to `chain`, which must end in the database where it says. Raises OutOfStep."""
        if not links:
            return
        last = links[-1].entry
        head = _row(self._signed(Head(last.writer, last.seq, last.hash, self._checkpoint)))
        place = {"of": chain.writer, "after": chain.seq, "onto": chain.hash}
        if connection.execute(_MOVE_HEAD, {**head, **place}).rowcount != 1:
            raise OutOfStep
        connection.execute(_ADD_ENTRIES, [_row(link.entry) for link in links])
        connection.execute(_ADD_PAYLOADS, [_payload_row(link) for link in links])

    def undelivered(self, connection: Connection, links: Sequence[Link]) -> tuple[Sequence[Link], Chain]:
        """Those of a chain's links that the database has not got, and where the chain ends there; it stays locked.

        A commit whose answer was lost may have succeeded: what it brought must not come twice. Raises OutOfStep where
        other entries are in their places.
        """
        writer, heads, entries = links[0].entry.writer, ledger_heads.c, ledger_entries.c
        locked = select(heads.seq, heads.hash).where(heads.writer == writer).with_for_update()
        head = connection.execute(locked).one_or_none()
        if head is None:
            raise OutOfStep
        known = [link.entry for link in links if link.entry.seq <= head.seq]
        missing = links[len(known) :]
        if known:
            there = entries.writer == writer, entries.seq.between(known[0].seq, known[-1].seq)
            stored = connection.execute(select(entries.hash).where(*there).order_by(entries.seq)).scalars().all()
            if stored != [entry.hash for entry in known]:
                raise OutOfStep
        chain = Chain(writer, head.seq, head.hash)
        if chain.adopt(missing) != missing:
            raise OutOfStep
        return missing, chain

    def known(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Which of the ids have an entry in any chain."""
        return set(connection.execute(select(ledger_entries.c.id).where(ledger_entries.c.id.in_(ids))).scalars())

    def checkpoint(self) -> None:
        """Bind together what all writers have written since the last checkpoint."""
        with self.transaction() as connection:
            newest, checkpoint = self._write_checkpoint(connection)
        self._has_seen(newest, checkpoint)

    def check_writable(self, writer: str) -> None:
        """Write something that changes nothing."""
        with self.transaction() as connection:
            ours = ledger_heads.c.writer == writer
            connection.execute(update(ledger_heads).where(ours).values(claimed=ledger_heads.c.claimed))

    def reach(self) -> None:
        """Connect anew and ask; any thread may."""
        with ledger_errors(), self._engine.connect() as connection:
            connection.detach()  # closed at the end, also where the engine was disposed of meanwhile
            connection.execute(text("SELECT 1"))

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

    def _write_checkpoint(self, connection: Connection) -> tuple[int, Checkpoint | None]:
        """The newest checkpoint's number, and the checkpoint if it is a new one: none is where no chain has moved."""
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHECKPOINT_LOCK})
        newest = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number.desc()).limit(1)
        last = connection.execute(newest).one_or_none()
        rows = connection.execute(select(ledger_heads).where(ledger_heads.c.seq > ledger_heads.c.claimed)).all()
        moved = [row for row in rows if self._is_ours(row)]
        if not moved:
            return last.number if last else 0, None
        checkpoint = self._next_checkpoint(last, moved)
        connection.execute(insert(ledger_checkpoints), _row(checkpoint))
        for row in moved:
            ours = ledger_heads.c.writer == row.writer
            connection.execute(update(ledger_heads).where(ours).values(claimed=row.seq))
        return checkpoint.number, checkpoint

    def _is_ours(self, row: Row[Any]) -> bool:
        """Whether this key has signed the head: what it has not, no checkpoint makes true."""
        head = read_head(row)
        if self._verifier.holds(head.text(), head.key, head.signature):
            return True
        if row.writer not in self._not_ours:
            self._not_ours.add(row.writer)
            log.error("ledger_head_not_ours", writer=row.writer, policy="no checkpoint names it")
        return False

    def _next_checkpoint(self, last: Row[Any] | None, moved: Sequence[Row[Any]]) -> Checkpoint:
        number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
        heads = format_claims([Claim(row.writer, row.seq, row.hash) for row in moved])
        unsigned = Checkpoint(number, written_time(self._clock()), heads, previous, "", self._signer.key_id, "")
        signature = self._signer.sign(unsigned.text())
        return Checkpoint(number, unsigned.at, heads, previous, unsigned.computed_hash(), unsigned.key, signature)

    def _has_seen(self, newest: int, checkpoint: Checkpoint | None) -> None:
        """Once it is durable: heads say which checkpoint they have seen, and logs kept elsewhere are anchors."""
        self._checkpoint = newest
        if checkpoint is not None:
            log.info("ledger_checkpoint", number=checkpoint.number, hash=checkpoint.hash)

    def _signed(self, head: Head) -> Head:
        return replace(head, key=self._signer.key_id, signature=self._signer.sign(head.text()))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(LedgerUnavailable), ledger_errors():
                connection.invalidate()
                connection.close()


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

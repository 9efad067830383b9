"""Writing the ledger's rows: each transaction leaves a chain whose end is signed."""

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

from monitoring.chains.anchors import GENESIS
from monitoring.chains.signing import Signer, Verifier
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import LedgerUnavailable
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Checkpoint, Claim, EntryWithPayload, Head, LedgerEntry, Payload, format_claims
from monitoring.ledger.records import read_head
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads, ledger_payloads
from monitoring.ledger.transactions import ledger_errors

_CHECKPOINT_LOCK = 0x6C656467  # PostgreSQL's advisory lock; any number that all our processes share
_NEVER_CLAIMED = -1

# Built once: every batch executes them, and SQLAlchemy finds their compiled forms faster.
_INSERT_ENTRIES, _INSERT_PAYLOADS = insert(ledger_entries), insert(ledger_payloads)
_MOVE_HEAD = (
    update(ledger_heads)
    .where(
        ledger_heads.c.writer == bindparam("old_writer"),
        ledger_heads.c.seq == bindparam("old_seq"),
        ledger_heads.c.hash == bindparam("old_hash"),
    )
    .values({name: bindparam(name) for name in Head.__slots__})
)

log = structlog.get_logger("atalaya.ledger")


class ChainConflict(Exception):
    """The chain in the database does not end where this process left it."""


class LedgerStore:
    """One connection, used by one thread at a time; `engine` opens transactions that write.

    Every method raises LedgerUnavailable while the database is unavailable, and rolls its transaction back.
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
        self._foreign_writers: set[str] = set()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction, durable once it is left without an error.

        Raises ChainConflict where rows to be added exist already.
        """
        try:
            with ledger_errors():
                if self._connection is None:
                    self._connection = self._engine.connect()
                try:
                    with self._connection.begin():
                        yield self._connection
                except IntegrityError as error:
                    raise ChainConflict from error
        except LedgerUnavailable:
            self._disconnect()
            raise

    def open_chain(self, writer: str) -> str:
        """Add a writer, and a checkpoint that names it; return the greatest entry id so far, or ""."""
        with self.transaction() as connection:
            head = self._sign_head(Head(writer, 0, GENESIS, self._checkpoint))
            connection.execute(insert(ledger_heads), {**_to_row(head), "claimed": _NEVER_CLAIMED})
            newest, checkpoint = self._add_checkpoint(connection)
            greatest: str | None = connection.execute(select(func.max(ledger_entries.c.id))).scalar_one()
        self._note_checkpoint(newest, checkpoint)
        return greatest or ""

    def append(self, connection: Connection, linked: Sequence[EntryWithPayload], chain: Chain) -> None:
        """Append entries to `chain`. Raises ChainConflict if it does not end in the database where it says."""
        if not linked:
            return
        last = linked[-1].entry
        head = _to_row(self._sign_head(Head(last.writer, last.seq, last.hash, self._checkpoint)))
        old_end = {"old_writer": chain.writer, "old_seq": chain.seq, "old_hash": chain.hash}
        if connection.execute(_MOVE_HEAD, {**head, **old_end}).rowcount != 1:
            raise ChainConflict
        connection.execute(_INSERT_ENTRIES, [_to_row(item.entry) for item in linked])
        connection.execute(_INSERT_PAYLOADS, [_to_payload_row(item) for item in linked])

    def find_undelivered(
        self, connection: Connection, linked: Sequence[EntryWithPayload]
    ) -> tuple[Sequence[EntryWithPayload], Chain]:
        """Return the entries that the database lacks, and the end of their chain there, which stays locked.

        A commit whose acknowledgement was lost may have succeeded: its entries must not be added again. Raises
        ChainConflict where the database has other entries under their numbers.
        """
        writer, heads, entries = linked[0].entry.writer, ledger_heads.c, ledger_entries.c
        locked = select(heads.seq, heads.hash).where(heads.writer == writer).with_for_update()
        head = connection.execute(locked).one_or_none()
        if head is None:
            raise ChainConflict
        delivered = [item.entry for item in linked if item.entry.seq <= head.seq]
        missing = linked[len(delivered) :]
        if delivered:
            same = entries.writer == writer, entries.seq.between(delivered[0].seq, delivered[-1].seq)
            stored = connection.execute(select(entries.hash).where(*same).order_by(entries.seq)).scalars().all()
            if stored != [entry.hash for entry in delivered]:
                raise ChainConflict
        chain = Chain(writer, head.seq, head.hash)
        if chain.relink(missing) != missing:
            raise ChainConflict
        return missing, chain

    def find_recorded_ids(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that have an entry in any chain."""
        return set(connection.execute(select(ledger_entries.c.id).where(ledger_entries.c.id.in_(ids))).scalars())

    def write_checkpoint(self) -> None:
        """Sign where all chains end that have grown since the last checkpoint."""
        with self.transaction() as connection:
            newest, checkpoint = self._add_checkpoint(connection)
        self._note_checkpoint(newest, checkpoint)

    def check_writable(self, writer: str) -> None:
        """Write to the database without changing anything."""
        with self.transaction() as connection:
            own_head = ledger_heads.c.writer == writer
            connection.execute(update(ledger_heads).where(own_head).values(claimed=ledger_heads.c.claimed))

    def check_connection(self) -> None:
        """Open a new connection and query it. Thread-safe."""
        with ledger_errors(), self._engine.connect() as connection:
            connection.detach()  # closed at the end, also where the engine was disposed of meanwhile
            connection.execute(text("SELECT 1"))

    def abort_transaction(self) -> None:
        """Make a transaction fail at once to which PostgreSQL does not respond. Thread-safe."""
        connection = self._connection
        if connection is None or connection.dialect.name != "postgresql":
            return
        with suppress(Exception), socket.socket(fileno=os.dup(_get_descriptor(connection))) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._disconnect()
        self._engine.dispose()

    def _add_checkpoint(self, connection: Connection) -> tuple[int, Checkpoint | None]:
        """Add a checkpoint unless no chain has grown; return the newest one's number, and the one that was added."""
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHECKPOINT_LOCK})
        newest = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number.desc()).limit(1)
        last = connection.execute(newest).one_or_none()
        rows = connection.execute(select(ledger_heads).where(ledger_heads.c.seq > ledger_heads.c.claimed)).all()
        grown = [row for row in rows if self._has_own_signature(row)]
        if not grown:
            return last.number if last else 0, None
        checkpoint = self._build_checkpoint(last, grown)
        connection.execute(insert(ledger_checkpoints), _to_row(checkpoint))
        for row in grown:
            head = ledger_heads.c.writer == row.writer
            connection.execute(update(ledger_heads).where(head).values(claimed=row.seq))
        return checkpoint.number, checkpoint

    def _has_own_signature(self, row: Row[Any]) -> bool:
        """Whether this key has signed the head: a checkpoint must not vouch for a head that it has not signed."""
        head = read_head(row)
        if self._verifier.is_valid(head.statement(), head.key, head.signature):
            return True
        if row.writer not in self._foreign_writers:
            self._foreign_writers.add(row.writer)
            log.error("ledger_head_not_ours", writer=row.writer, policy="no checkpoint names it")
        return False

    def _build_checkpoint(self, last: Row[Any] | None, grown: Sequence[Row[Any]]) -> Checkpoint:
        number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
        heads = format_claims([Claim(row.writer, row.seq, row.hash) for row in grown])
        now = format_timestamp(self._clock())
        checkpoint = Checkpoint(number, now, heads, previous, "", self._signer.key_id, "")
        signature = self._signer.sign(checkpoint.statement())
        return replace(checkpoint, hash=checkpoint.compute_hash(), signature=signature)

    def _note_checkpoint(self, newest: int, checkpoint: Checkpoint | None) -> None:
        """Let later heads name the newest checkpoint, and log a new one: logs kept elsewhere contain anchors.

        Must be called once the checkpoint is durable.
        """
        self._checkpoint = newest
        if checkpoint is not None:
            log.info("ledger_checkpoint", number=checkpoint.number, hash=checkpoint.hash)

    def _sign_head(self, head: Head) -> Head:
        return replace(head, key=self._signer.key_id, signature=self._signer.sign(head.statement()))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(LedgerUnavailable), ledger_errors():
                connection.invalidate()
                connection.close()


def _to_payload_row(linked: EntryWithPayload) -> dict[str, Any]:
    entry = linked.entry
    return {"writer": entry.writer, "seq": entry.seq, "id": entry.id, **_to_row(linked.payload)}


def _to_row(record: LedgerEntry | Payload | Head | Checkpoint) -> dict[str, Any]:
    """Return the columns without copying their values, as `dataclasses.asdict` would."""
    return {name: getattr(record, name) for name in record.__slots__}


def _get_descriptor(connection: Connection) -> int:
    driver: Any = connection.connection.dbapi_connection
    descriptor: int = driver.fileno()
    return descriptor

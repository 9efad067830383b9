"""Writes the ledger's rows: each transaction leaves a chain whose end is signed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import asdict, replace
from sqlalchemy import Connection, Engine, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from monitoring.chains.anchors import GENESIS
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import LedgerUnavailable
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Claim, EntryWithPayload, Head
from monitoring.ledger.tables import ledger_entries, ledger_heads, ledger_payloads
from monitoring.ledger.transactions import exclude_upkeep, ledger_errors
from monitoring.ledger.writing.checkpoints import NEVER_CLAIMED, CheckpointResult, CheckpointWriter, read_newest
from monitoring.ledger.writing.erasures import erase_delivered
from monitoring.ledger.writing.labels import append_labels
from storage.driver import DriverConnection, DriverStatement

# The statements that every batch executes.
INSERT_ENTRIES, INSERT_PAYLOADS = DriverStatement(insert(ledger_entries)), DriverStatement(insert(ledger_payloads))
MOVE_HEAD = DriverStatement(
    update(ledger_heads)
    .where(
        ledger_heads.c.writer == bindparam("old_writer"),
        ledger_heads.c.seq == bindparam("old_seq"),
        ledger_heads.c.hash == bindparam("old_hash"),
    )
    .values({name: bindparam(name) for name in Head.__struct_fields__})
    .returning(ledger_heads.c.seq)
)


class ChainConflict(Exception):
    """The chain in the database does not end where this process left it."""


class LedgerStore:
    """Writes through one connection; `engine` must have the execution options WRITING.

    Not thread-safe, except for `check_connection` and `abort_transaction`.

    `on_contradiction` is called for every row that contradicts what this process wrote or what is signed. Signatures of
    the earlier `public_keys` are accepted as well. Every method raises LedgerUnavailable while the database is
    unavailable, and rolls its transaction back.
    """

    def __init__(
        self,
        engine: Engine,
        signer: Signer,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_contradiction: Callable[[], None] = lambda: None,
        public_keys: Sequence[str] = (),
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._connection: Connection | None = None
        self._driver: DriverConnection | None = None  # the driver's side of this connection
        self._checkpoint = 0
        self._checkpoints = CheckpointWriter(signer, clock, on_contradiction, public_keys)
        self._written: list[Claim] = []  # by the open transaction

    def use_signer(self, signer: Signer) -> None:
        """Sign with another key from the next transaction on."""
        self._signer = signer
        self._checkpoints.use_signer(signer)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction, which is durable once the context ends without an error.

        Raises ChainConflict if rows to be added already exist.
        """
        with self._tracking_writes() as connection, connection.begin():
            yield connection

    @contextmanager
    def delivery_transaction(self) -> Iterator[Connection]:
        """Open a transaction like `transaction`, during which no pruning or erasing runs."""
        with self.transaction() as connection:
            exclude_upkeep(connection)
            yield connection

    @contextmanager
    def batch_transaction(self) -> Iterator[DriverConnection]:
        """Open a transaction like `transaction`, but through the driver, for the batches that callers wait for."""
        with self._tracking_writes() as connection:
            if self._driver is None:
                self._driver = DriverConnection(connection)
            with self._driver.transaction():
                yield self._driver

    @contextmanager
    def _tracking_writes(self) -> Iterator[Connection]:
        """Remember what a transaction has written once it is durable; disconnect if it has failed."""
        try:
            with ledger_errors():
                if self._connection is None:
                    self._connection = self._engine.connect()
                self._written = []
                try:
                    yield self._connection
                except IntegrityError as error:
                    raise ChainConflict from error
                self._checkpoints.own |= {claim.writer: claim for claim in self._written}
        except LedgerUnavailable:
            self._disconnect()
            raise

    def open_chain(self, writer: str) -> str:
        """Add a writer, and a checkpoint that names it; return the greatest entry id so far, or ""."""
        with self.transaction() as connection:
            newest, start = read_newest(connection), Claim(writer, 0, GENESIS)
            head = self._sign_head(Head(writer, start.seq, start.hash, newest.number if newest else 0))
            connection.execute(insert(ledger_heads), {**asdict(head), "claimed": NEVER_CLAIMED})
            self._written.append(start)
            result = self._checkpoints.add(connection, start)
            greatest: str | None = connection.execute(select(func.max(ledger_entries.c.id))).scalar_one()
        self._confirm(result)
        return greatest or ""

    def append(self, connection: DriverConnection, linked: Sequence[EntryWithPayload], chain: Chain) -> None:
        """Append entries to `chain`. Raises ChainConflict if the chain in the database has another end."""
        if not linked:
            return
        last = linked[-1].entry
        head = asdict(self._sign_head(Head(last.writer, last.seq, last.hash, self._checkpoint)))
        old_end = {"old_writer": chain.writer, "old_seq": chain.seq, "old_hash": chain.hash}
        moved = connection.execute(MOVE_HEAD, {**head, **old_end})
        connection.execute_many(INSERT_ENTRIES, [asdict(item.entry) for item in linked])
        connection.execute_many(INSERT_PAYLOADS, [_to_payload_row(item) for item in linked])
        append_labels(connection, linked)
        if not moved.fetch():
            raise ChainConflict
        self._written.append(Claim(last.writer, last.seq, last.hash))

    def find_undelivered(
        self, connection: Connection, linked: Sequence[EntryWithPayload]
    ) -> tuple[Sequence[EntryWithPayload], Chain]:
        """Return the entries that the database lacks, and the end of their chain there, which stays locked.

        A commit whose acknowledgement was lost may have succeeded: its entries must not be added again. Raises
        ChainConflict if the database has other entries with their numbers.
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

    def erase_delivered(self, connection: Connection, delivered: Sequence[EntryWithPayload]) -> None:
        """Erase the entries whose subject was erased while they were spooled; `connection` is that of a delivery."""
        erase_delivered(connection, delivered, self._signer, format_timestamp(self._clock()))

    def find_recorded_ids(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Return the ids among `ids` that have an entry in any chain."""
        return set(connection.execute(select(ledger_entries.c.id).where(ledger_entries.c.id.in_(ids))).scalars())

    def write_checkpoint(self) -> None:
        """Write a signed checkpoint that names the end of every chain that has grown since the last one."""
        with self.transaction() as connection:
            result = self._checkpoints.add(connection)
        self._confirm(result)

    def check_writable(self, writer: str) -> None:
        """Check that the database accepts writes, without changing anything."""
        with self.transaction() as connection:
            own_head = ledger_heads.c.writer == writer
            connection.execute(update(ledger_heads).where(own_head).values(claimed=ledger_heads.c.claimed))

    def check_connection(self) -> None:
        """Open a new connection and query it. Thread-safe."""
        with ledger_errors(), self._engine.connect() as connection:
            connection.detach()  # closed at the end, even if the engine was disposed of meanwhile
            connection.execute(text("SELECT 1"))

    def abort_transaction(self) -> None:
        """Make the running transaction fail at once, because PostgreSQL does not respond to it. Thread-safe."""
        connection = self._connection
        if connection is None or connection.dialect.name != "postgresql":
            return
        with suppress(Exception), socket.socket(fileno=os.dup(_get_descriptor(connection))) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next write opens another one."""
        self._disconnect()
        self._engine.dispose()

    def _confirm(self, result: CheckpointResult) -> None:
        """Make later heads name the newest checkpoint, which is durable now."""
        self._checkpoint = result.newest
        self._checkpoints.confirm(result)

    def _sign_head(self, head: Head) -> Head:
        return replace(head, key=self._signer.key_id, signature=self._signer.sign(head.statement()))

    def _disconnect(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            with suppress(LedgerUnavailable), ledger_errors():
                connection.invalidate()
                connection.close()


def _to_payload_row(linked: EntryWithPayload) -> dict[str, Any]:
    entry = linked.entry
    return {"writer": entry.writer, "seq": entry.seq, "id": entry.id, **asdict(linked.payload)}


def _get_descriptor(connection: Connection) -> int:
    driver: Any = connection.connection.dbapi_connection
    descriptor: int = driver.fileno()
    return descriptor

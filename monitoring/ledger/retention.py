"""Shortening the chains: the oldest entries go, a signed stump stays, and what is left still verifies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from monitoring.errors import LedgerInUse, LedgerUnavailable
from monitoring.ledger.entries import CHECKPOINTS, Claim, Stump, claims_of, written_time
from monitoring.ledger.signing import Signer
from monitoring.ledger.tables import (
    ledger_checkpoints,
    ledger_entries,
    ledger_erasures,
    ledger_heads,
    ledger_payloads,
    ledger_stumps,
)

CHUNK = 1000
_UPKEEP_LOCK = 0x6C656470  # any number that every process of ours knows


class Pruning:
    """Removes what is older than a moment, in many short transactions: it can end at any time, and go on later.

    `engine` opens transactions that write. Every method raises LedgerUnavailable.
    """

    def __init__(self, engine: Engine, signer: Signer, now: datetime) -> None:
        self._engine = engine
        self._signer = signer
        self._now = written_time(now)

    def count(self, before: datetime) -> int:
        """About how many entries there are to remove."""
        with self._transaction() as connection:
            older = select(func.count()).select_from(ledger_entries).where(ledger_entries.c.at < written_time(before))
            return connection.execute(older).scalar_one()

    def prune(self, before: datetime) -> Iterator[int]:
        """Yield how many entries each transaction has removed; the checkpoints that name nothing else go at the end.

        Raises LedgerInUse where a reader keeps their text in SQLite's files.
        """
        moment = written_time(before)
        with self._transaction() as connection:
            writers = connection.execute(select(ledger_heads.c.writer).order_by(ledger_heads.c.writer)).scalars().all()
        for writer in writers:
            while removed := self._prune_chain(writer, moment):
                yield removed
        while self._prune_checkpoints(moment):
            pass
        scrub(self._engine)

    def _prune_chain(self, writer: str, moment: str) -> int:
        """Remove the oldest entries of a chain, at most CHUNK, up to the first that is not older."""
        columns = ledger_entries.c
        ours = columns.writer == writer
        with self._transaction() as connection:
            oldest = select(columns.seq, columns.at, columns.hash).where(ours).order_by(columns.seq).limit(CHUNK)
            rows = connection.execute(oldest).all()
            kept = next((place for place, row in enumerate(rows) if row.at >= moment), len(rows))
            if kept == 0:
                return 0
            last = rows[kept - 1]
            for table in (ledger_payloads, ledger_erasures, ledger_entries):
                connection.execute(delete(table).where(table.c.writer == writer, table.c.seq <= last.seq))
            self._leave_stump(connection, writer, last.seq, last.hash)
            return kept

    def _prune_checkpoints(self, moment: str) -> int:
        """Remove the oldest checkpoints, at most CHUNK, up to the first that is not older or still proves something."""
        columns = ledger_checkpoints.c
        with self._transaction() as connection:
            rows = connection.execute(select(ledger_checkpoints).order_by(columns.number).limit(CHUNK + 1)).all()
            stumps = {row.writer: row.seq for row in connection.execute(select(ledger_stumps))}
            claimed = {row.writer: row.claimed for row in connection.execute(select(ledger_heads))}
            gone = 0
            # The newest one always stays: the next follows it.
            for row in rows[:-1]:
                if row.at >= moment or any(_needed(claim, stumps, claimed) for claim in claims_of(row.heads)):
                    break
                gone += 1
            if gone:
                last = rows[gone - 1]
                connection.execute(delete(ledger_checkpoints).where(columns.number <= last.number))
                self._leave_stump(connection, CHECKPOINTS, last.number, last.hash)
            return gone

    def _leave_stump(self, connection: Connection, writer: str, seq: int, digest: str) -> None:
        stump = Stump(writer, seq, digest, self._now)
        values = {
            "seq": seq,
            "hash": digest,
            "at": self._now,
            "key": self._signer.key_id,
            "signature": self._signer.sign(stump.text()),
        }
        ours = ledger_stumps.c.writer == writer
        if connection.execute(update(ledger_stumps).where(ours).values(**values)).rowcount == 0:
            connection.execute(insert(ledger_stumps).values(writer=writer, **values))

    def _transaction(self) -> AbstractContextManager[Connection]:
        return ledger_transaction(self._engine)


def _needed(claim: Claim, stumps: Mapping[str, int], claimed: Mapping[str, int]) -> bool:
    """Whether a checkpoint's claim is the last one of a chain, and the entry it names is still there."""
    return claim.seq > stumps.get(claim.writer, 0) and claim.seq == claimed.get(claim.writer)


@contextmanager
def ledger_transaction(engine: Engine) -> Iterator[Connection]:
    """For upkeep: one such transaction at a time, and what it deletes is overwritten. Raises LedgerUnavailable."""
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPKEEP_LOCK})
            else:  # SQLite has one writer at a time anyway
                connection.execute(text("PRAGMA secure_delete = ON"))
            yield connection
    except (SQLAlchemyError, OSError) as error:
        raise LedgerUnavailable from error


def scrub(engine: Engine) -> None:
    """Bring SQLite's log of changes into its file, and empty it: deleted text is in there, too.

    Waits for readers as long as the engine waits for locks. Raises LedgerInUse, LedgerUnavailable.
    """
    if engine.dialect.name != "sqlite":
        return
    try:
        connection = engine.raw_connection()  # outside of any transaction
        busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.close()
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise LedgerUnavailable from error
    if busy:
        raise LedgerInUse

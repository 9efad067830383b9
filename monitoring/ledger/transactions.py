"""Transactions on the ledger's tables, and the removal of deleted text from SQLite's files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from monitoring.errors import LedgerInUse, LedgerUnavailable
from storage.errors import DatabaseUnavailable
from storage.transactions import database_errors

_UPKEEP_LOCK = 0x6C656470  # the key of a PostgreSQL advisory lock: arbitrary, but the same in all processes
_CHECKPOINT_RETRY_S = 0.02
# A process that waits for SQLite's lock retries every 0.1 s, and SQLite keeps no queue. Without a pause between them,
# many short transactions could hold the lock for longer than the ledger of a gateway waits for it.
SQLITE_PAUSE_S = 0.1


@contextmanager
def ledger_errors(url: URL | None = None) -> Iterator[None]:
    """Translate every error of the database into LedgerUnavailable, after which entries are spooled."""
    try:
        with database_errors(url, strict=True):
            yield
    except DatabaseUnavailable as error:
        raise LedgerUnavailable from error


@contextmanager
def ledger_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction for pruning or erasing. Only one runs at a time; on SQLite, a pause lets others write.

    Raises LedgerUnavailable.
    """
    with ledger_errors(engine.url), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPKEEP_LOCK})
        yield connection
    if engine.dialect.name == "sqlite":
        time.sleep(SQLITE_PAUSE_S)


def exclude_upkeep(connection: Connection) -> None:
    """Make pruning and erasing wait for the end of this transaction. On SQLite, it must have begun with WRITING."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _UPKEEP_LOCK})


def truncate_wal(engine: Engine) -> None:
    """Move SQLite's write-ahead log into the database file and empty the log, which contains deleted text.

    Waits for readers as long as the engine waits for locks. Raises LedgerInUse, LedgerUnavailable.
    """
    if engine.dialect.name != "sqlite":
        return
    with ledger_errors():
        connection = engine.raw_connection()  # outside of any transaction
        cursor = connection.cursor()
        (timeout_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        deadline = time.monotonic() + timeout_ms / 1000
        # SQLite waits for readers and writers, but not for another checkpoint, which a writer runs now and then.
        while (busy := cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]) and time.monotonic() < deadline:
            time.sleep(_CHECKPOINT_RETRY_S)
        connection.close()
    if busy:
        raise LedgerInUse

"""A store and a spool that can be made to fail."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from monitoring.errors import LedgerUnavailable
from monitoring.ledger.spool.queue import Spool, SpoolFull
from monitoring.ledger.writing.store import LedgerStore
from storage.driver import DriverConnection
from tests.support.polling import PATIENCE_S

T = TypeVar("T")

# While this trigger exists, SQLite cannot delete texts, as on a full disk.
REFUSE_DELETION = "TRIGGER stuck BEFORE DELETE ON waiting BEGIN SELECT RAISE(ABORT, 'disk full'); END"


class FaultyStore(LedgerStore):
    """With a `fault`, every transaction is rolled back or committed, and raises LedgerUnavailable either way."""

    fault: Literal["rolled back", "committed"] | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches = 0  # how many transactions with entries were committed

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self.failing(super().transaction()) as connection:
            yield connection

    @contextmanager
    def batch_transaction(self) -> Iterator[DriverConnection]:
        with self.failing(super().batch_transaction()) as connection:
            yield connection
        self.batches += 1

    @contextmanager
    def failing(self, transaction: AbstractContextManager[T]) -> Iterator[T]:
        """Apply the fault to a transaction."""
        with suppress(_RollBack), transaction as connection:
            yield connection
            fault = self.fault  # read once: a test may change it meanwhile
            if fault == "rolled back":
                raise _RollBack
        if fault is not None:
            raise LedgerUnavailable


class HangingStore(FaultyStore):
    """While `hanging` is true, a transaction ends only when it is aborted; `hung` is set when one begins."""

    hanging = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hung, self._aborted = threading.Event(), threading.Event()

    def abort_transaction(self) -> None:
        self._aborted.set()

    @contextmanager
    def failing(self, transaction: AbstractContextManager[T]) -> Iterator[T]:
        if self.hanging:
            self._aborted.clear()
            self.hung.set()
            assert self._aborted.wait(PATIENCE_S)
            raise LedgerUnavailable
        with super().failing(transaction) as connection:
            yield connection


class _RollBack(Exception):
    """Rolls a transaction back."""


class FaultySpool(Spool):
    """A spool with accessible connections, whose disk can be made full; `probes` counts calls of `has_capacity`."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.connections: list[sqlite3.Connection] = []
        self.disk_full = False
        self.append_fails = False
        self.cannot_connect = False
        self.probes = 0
        super().__init__(path, limit_bytes, self._connect_recorded)

    def _connect_recorded(self, path: Path, **options: Any) -> sqlite3.Connection:
        if self.cannot_connect:
            raise sqlite3.OperationalError("unable to open database file")
        self.connections.append(sqlite3.connect(path, **options))
        return self.connections[-1]

    def execute(self, statement: str) -> list[Any]:
        return self.connections[-1].execute(statement).fetchall()

    def append(self, texts: Sequence[str]) -> None:
        if self.append_fails:
            raise SpoolFull
        super().append(texts)

    def has_capacity(self) -> bool:
        self.probes += 1
        return not self.disk_full and super().has_capacity()

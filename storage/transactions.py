"""Transactions, and the only place where SQLAlchemy's errors are translated."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.errors import DatabaseUnavailable
from storage.failures import describe_failure

BEGIN_OPTION = "sqlite_begin"
# Makes a transaction take SQLite's write lock at its beginning. Otherwise a transaction that has read, and cannot get
# the lock when it first writes, would have to be rolled back.
WRITING = {BEGIN_OPTION: "BEGIN IMMEDIATE"}
SETTINGS_OPTION = "postgresql_settings"  # the query that applies settings to a transaction
TURNS_OPTION = "sqlite_turns"  # the WriterTurns of an engine

MAX_PAUSE_S = 0.1  # SQLite polls for its lock at least this often, so a longer pause would help no other writer

T = TypeVar("T")
Record = Callable[[AsyncConnection, T], Awaitable[None]]
"""Records what a transaction changed, as its last statements. If that fails, the change is rolled back."""

_UNREACHABLE = "The database cannot be reached. Check DATABASE_URL, or try again later."
_UNUSABLE = "The database cannot be used now. Try again later."
# PostgreSQL's codes for a missing schema, missing privileges and a read-only server.
_OPERATOR_STATES = frozenset({"3F000", "42501", "25006"})


class WriterTurns:
    """Lets the tasks of a process write to SQLite one after the other, with a pause after each transaction.

    SQLite gives its lock to the connection that polls at the right moment. Without the pauses, the ledger's thread and
    other processes would rarely get it while many tasks write. A pause is as long as the transaction, but at most
    MAX_PAUSE_S. A task waits at most `wait_s` seconds for the others.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._lock = asyncio.Lock()
        self._pause_until = 0.0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Raises TimeoutError if the others take too long."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._wait_s):
                await self._lock.acquire()
        except TimeoutError:
            raise TimeoutError("database is locked") from None  # as SQLite would report it
        try:
            await asyncio.sleep(self._pause_until - clock())
            began = clock()
            try:
                yield
            finally:
                ended = clock()
                self._pause_until = ended + min(ended - began, MAX_PAUSE_S)
        finally:
            self._lock.release()


async def record_nothing(_connection: AsyncConnection, _result: object) -> None:
    """A Record that writes nothing."""


@asynccontextmanager
async def reading(engine: AsyncEngine, *, strict: bool = False) -> AsyncIterator[AsyncConnection]:
    """Open a transaction that only reads. Raises DatabaseUnavailable; see `database_errors` for `strict`."""
    with database_errors(engine.url, strict=strict):
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine, *, strict: bool = False) -> AsyncIterator[AsyncConnection]:
    """Open a transaction that writes. Raises DatabaseUnavailable; see `database_errors` for `strict`."""
    with database_errors(engine.url, strict=strict):
        async with _writer_turn(engine), engine.connect() as connection:
            await connection.execution_options(**WRITING)
            async with connection.begin():
                yield connection


@asynccontextmanager
async def _writer_turn(engine: AsyncEngine) -> AsyncIterator[None]:
    """Let one task at a time write with the engine, if its database is SQLite. Raises TimeoutError."""
    turns: WriterTurns | None = engine.get_execution_options().get(TURNS_OPTION)
    if turns is None:
        yield
    else:
        async with turns.take():
            yield


async def ping(engine: AsyncEngine) -> None:
    """Check that the database responds. Raises DatabaseUnavailable."""
    with database_errors(engine.url):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


def get_begin_statement(connection: Connection) -> str:
    """Return the first statement of every transaction; psycopg begins PostgreSQL's transactions by itself."""
    options = connection.get_execution_options()
    statement: str = options[SETTINGS_OPTION] if SETTINGS_OPTION in options else options.get(BEGIN_OPTION, "BEGIN")
    return statement


@contextmanager
def database_errors(url: URL | None = None, *, strict: bool = False) -> Iterator[None]:
    """Translate the errors of SQLAlchemy and its drivers into DatabaseUnavailable; `url` is the database's.

    By default, only errors that an operator can correct are translated; an invalid statement is a bug and is raised as
    it is. `strict` translates every error, for callers that must treat every failure of the database alike.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError) as error:
        raise DatabaseUnavailable(_UNREACHABLE, reason=describe_failure(error, url)) from error
    except DatabaseError as error:
        if type(error) is DatabaseError:  # raised by SQLite; errors in our own statements have subclasses
            damaged = "DATABASE_URL: the file is damaged, or is not an SQLite database."
            raise DatabaseUnavailable(damaged, reason=describe_failure(error, url)) from error
        if not strict and getattr(error.orig, "sqlstate", None) not in _OPERATOR_STATES:
            raise
        raise DatabaseUnavailable(_UNUSABLE, reason=describe_failure(error, url)) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        if not strict:
            raise
        raise DatabaseUnavailable(_UNUSABLE, reason=describe_failure(error, url)) from error

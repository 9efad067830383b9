"""Transactions, and the only translation of SQLAlchemy's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.errors import DatabaseUnavailable

BEGIN_OPTION = "sqlite_begin"
# A transaction with this option takes SQLite's write lock when it begins: one that reads first and is then refused
# the lock would have to be rolled back.
WRITING = {BEGIN_OPTION: "BEGIN IMMEDIATE"}


@asynccontextmanager
async def reading(engine: AsyncEngine, *, strict: bool = False) -> AsyncIterator[AsyncConnection]:
    """Open a transaction that only reads. Raises DatabaseUnavailable; see `database_errors` for `strict`."""
    with database_errors(strict=strict):
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine, *, strict: bool = False) -> AsyncIterator[AsyncConnection]:
    """Open a transaction that writes. Raises DatabaseUnavailable; see `database_errors` for `strict`."""
    with database_errors(strict=strict):
        async with engine.connect() as connection:
            await connection.execution_options(**WRITING)
            async with connection.begin():
                yield connection


async def ping(engine: AsyncEngine) -> None:
    """Raises DatabaseUnavailable."""
    with database_errors():
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


@contextmanager
def database_errors(*, strict: bool = False) -> Iterator[None]:
    """Translate the errors of SQLAlchemy and its drivers into DatabaseUnavailable.

    By default only connection errors and damaged files are translated: a wrong statement is a bug and surfaces as one.
    `strict` translates every error, for records that are kept elsewhere whatever the fault of the database is.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError) as error:
        raise DatabaseUnavailable("The database cannot be reached. Check DATABASE_URL, or try again later.") from error
    except DatabaseError as error:
        if not strict and type(error) is not DatabaseError:  # its other subclasses are faults of our own statements
            raise
        raise DatabaseUnavailable("DATABASE_URL: the file is damaged, or is no SQLite database.") from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        if not strict:
            raise
        raise DatabaseUnavailable("The database cannot be used now. Try again later.") from error

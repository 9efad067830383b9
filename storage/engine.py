"""Database engines: SQLite in one file, or PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.errors import DatabaseUnavailable
from storage.transactions import BEGIN_OPTION, database_errors

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
# A commit is durable, and SQLite overwrites deleted or moved content: some of it is deleted in order to be erased.
_PRAGMAS = ("synchronous = FULL", "secure_delete = ON")


def open_engine(url: str) -> AsyncEngine:
    """Create an asynchronous engine without connecting; creates the directory of an SQLite file.

    Raises DatabaseUnavailable.
    """
    parsed = _parse(url)
    # Errors would otherwise quote the parameters, password hashes among them.
    if parsed.get_backend_name() == "postgresql":
        return create_async_engine(
            parsed, hide_parameters=True, pool_pre_ping=True, pool_timeout=5, connect_args={"connect_timeout": 5}
        )
    engine = create_async_engine(parsed, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def open_blocking_engine(url: str, wait_s: int = 5) -> Engine:
    """Create an engine for threads and for commands that stream.

    No statement waits longer than `wait_s` seconds for a lock, or for PostgreSQL. Raises DatabaseUnavailable.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        limits = f"-c lock_timeout={wait_s}s -c statement_timeout={wait_s}s"
        arguments = {"connect_timeout": max(2, wait_s), "tcp_user_timeout": wait_s * 1000, "options": limits}
        return create_engine(parsed, hide_parameters=True, connect_args=arguments)
    engine = create_engine(
        parsed.set(drivername="sqlite"),
        hide_parameters=True,
        connect_args={"timeout": wait_s, "check_same_thread": False, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_blocking_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def async_url(url: str) -> str:
    """Name the asynchronous driver in a platform's URL. Raises DatabaseUnavailable for an unsupported database."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _DRIVERS:
        raise DatabaseUnavailable("DATABASE_URL must start with postgresql:// or sqlite:///.")
    return f"{_DRIVERS[scheme]}://{rest}"


def sqlite_path(url: str) -> Path | None:
    """Return SQLite's file, or None for PostgreSQL and for a database in memory. Raises DatabaseUnavailable."""
    parsed = _parse(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def check_sqlite_file(url: str) -> None:
    """Check that an SQLite file can be opened, before the asynchronous driver leaves a failed thread behind.

    Raises DatabaseUnavailable, which names the file.
    """
    path = sqlite_path(url)
    if path is not None:
        try:
            sqlite3.connect(path).close()
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"DATABASE_URL: {path} cannot be opened: {error}.") from None


def dialect_insert(table: Table, dialect: Dialect) -> Any:
    """Return an INSERT with `on_conflict_…`: both databases support it, but SQLAlchemy only in dialect modules."""
    return import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)


def _parse(url: str) -> URL:
    """Raises DatabaseUnavailable."""
    try:
        parsed = make_url(async_url(url))
    except (ArgumentError, ValueError):
        raise DatabaseUnavailable("DATABASE_URL cannot be read. Check it for unescaped characters.") from None
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        with database_errors():
            Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return parsed


def _prepare_blocking_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.run_async(_set_pragmas)


async def _set_pragmas(driver: Any) -> None:
    for pragma in ("busy_timeout = 5000", "foreign_keys = ON", *_PRAGMAS):
        await driver.execute(f"PRAGMA {pragma}")
    # SQLite ignores its busy time-out while a new file changes to WAL and another process opens it.
    for attempts_left in reversed(range(500)):
        try:
            await driver.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if not attempts_left:
                raise
            await asyncio.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # The driver itself begins late, and never for CREATE TABLE.
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN"))

"""Database engines: SQLite in one file, or PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.errors import DatabaseUnavailable
from storage.logins import DatabaseLogin
from storage.private_files import create_sqlite_file
from storage.transactions import SETTINGS_OPTION, TURNS_OPTION, WriterTurns, database_errors, get_begin_statement
from storage.urls import read_database_url

SQLITE_WAIT_S = 5
"""How long a statement waits for the lock of an SQLite database."""

# No prepared statements: they belong to a server connection, and PgBouncer may use another one for each transaction.
# Without an encoding, psycopg returns text as bytes from a database in SQL_ASCII, which `migrate` could not report.
_POSTGRES_ARGUMENTS: Mapping[str, Any] = {"prepare_threshold": None, "client_encoding": "utf8"}
# Commits are durable, and SQLite overwrites deleted content: deleted personal data must not stay in the file. Like
# PostgreSQL, it checks foreign keys, which also concerns restoring a backup.
_PRAGMAS = ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON")


def open_engine(url: str, login: DatabaseLogin | None = None, wait_s: int | None = None) -> AsyncEngine:
    """Create an asynchronous engine without connecting; creates an SQLite file and its directory.

    `wait_s` limits how many seconds a statement of PostgreSQL may take or wait for a lock; if the server does not
    respond, the connection is closed a second later. Migrations need an engine without this limit. SQLite always waits
    up to five seconds for a lock. New connections to PostgreSQL use the current user and password of `login`, if given.
    Raises DatabaseUnavailable.
    """
    parsed, schema = _parse(url)
    # hide_parameters: error messages would otherwise contain parameters such as password hashes.
    if parsed.get_backend_name() == "postgresql":
        engine = create_async_engine(
            parsed,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_timeout=5,
            connect_args={**_limit_connections(wait_s), "connect_timeout": 5},
        )
        _prepare_postgres(engine.sync_engine, wait_s, schema, login)
        return engine
    turns = WriterTurns(SQLITE_WAIT_S)
    engine = create_async_engine(parsed, hide_parameters=True, execution_options={TURNS_OPTION: turns})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def open_blocking_engine(
    url: str, wait_s: int = 5, login: DatabaseLogin | None = None, *, pre_ping: bool = False
) -> Engine:
    """Create a blocking engine, for threads and for commands that stream rows.

    A statement waits at most `wait_s` seconds for a lock or for PostgreSQL, and connecting takes at most five.
    Connections to PostgreSQL use the current user and password of `login`, if given. With `pre_ping`, each connection
    is tested before it is reused; otherwise the first transaction after a restart of PostgreSQL fails. Raises
    DatabaseUnavailable.
    """
    parsed, schema = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        # A command may let a statement run for an hour, but a server or network that is lost must not cost as much.
        limits = {"connect_timeout": min(max(2, wait_s), 5), "tcp_user_timeout": min(wait_s, 30) * 1000}
        arguments = {**_POSTGRES_ARGUMENTS, **limits}
        engine = create_engine(parsed, hide_parameters=True, pool_pre_ping=pre_ping, connect_args=arguments)
        _prepare_postgres(engine, wait_s, schema, login)
        return engine
    engine = create_engine(
        parsed.set(drivername="sqlite"),
        hide_parameters=True,
        connect_args={"timeout": wait_s, "check_same_thread": False, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_blocking_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def sqlite_path(url: str) -> Path | None:
    """Return SQLite's file, or None for PostgreSQL and for a database in memory. Raises DatabaseUnavailable."""
    parsed, _ = _parse(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def check_sqlite_file(url: str) -> None:
    """Check that an SQLite file can be opened; otherwise the asynchronous driver would leave a thread behind.

    Raises DatabaseUnavailable, whose reason names the file.
    """
    path = sqlite_path(url)
    if path is not None:
        url_of_file = URL.create("sqlite", database=str(path))
        with database_errors(url_of_file, strict=True), closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")  # reads the file's header


def dialect_insert(table: Table, dialect: Dialect) -> Any:
    """Return an INSERT with `on_conflict_…`, which SQLAlchemy provides only in the modules of its dialects."""
    return _get_insert(dialect.name)(table)


def _get_insert(dialect_name: str) -> Any:
    return import_module(f"sqlalchemy.dialects.{dialect_name}").insert


def add_to_row(connection: Connection, table: Table, key: Mapping[str, str], values: Mapping[str, float]) -> None:
    """Add `values` to the columns of a row, or insert the row; `key` holds its primary key."""
    connection.execute(_build_addition(table, connection.dialect.name, tuple(values)), {**key, **values})


@cache
def _build_addition(table: Table, dialect_name: str, names: tuple[str, ...]) -> Any:
    """Build the statement of `add_to_row`: once, because building it takes longer than executing it."""
    added = _get_insert(dialect_name)(table)
    totals = {name: table.c[name] + added.excluded[name] for name in names}
    return added.on_conflict_do_update(index_elements=table.primary_key, set_=totals)


def _parse(url: str) -> tuple[URL, str | None]:
    """Return SQLAlchemy's URL, and PostgreSQL's schema if the text names one; creates an SQLite file and its directory.

    Raises DatabaseUnavailable.
    """
    database = read_database_url(url)
    try:
        parsed = make_url(database.url)
    except (ArgumentError, ValueError):
        raise DatabaseUnavailable("DATABASE_URL cannot be read. Check it for unescaped characters.") from None
    if parsed.get_backend_name() == "postgresql":
        _check_hosts(parsed)
    elif parsed.database:
        _make_folder(Path(parsed.database).parent)
        create_sqlite_file(Path(parsed.database))
    return parsed, database.schema


def _check_hosts(url: URL) -> None:
    """Check that every host has a port, or none has. Raises DatabaseUnavailable."""
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        raise DatabaseUnavailable(
            "DATABASE_URL: the hosts and ports do not match. Write several hosts as ?host=HOST:PORT&host=HOST:PORT."
        ) from None


def _make_folder(folder: Path) -> None:
    """Create a folder that only its owner can enter. Raises DatabaseUnavailable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = f"DATABASE_URL: the folder {folder} cannot be created: {error.strerror}."
        raise DatabaseUnavailable("The database cannot be opened. Check DATABASE_URL.", reason=reason) from error


def _limit_connections(wait_s: int | None) -> dict[str, Any]:
    """Return the driver's arguments. The limit is a second longer than PostgreSQL's own, which should act first."""
    if wait_s is None:
        return dict(_POSTGRES_ARGUMENTS)
    from storage.limited import LimitedConnection  # imports psycopg, which SQLite does not need

    open_limited = partial(LimitedConnection.open, wait_s + 1)
    return {**_POSTGRES_ARGUMENTS, "tcp_user_timeout": wait_s * 1000, "async_creator_fn": open_limited}


def _prepare_postgres(engine: Engine, wait_s: int | None, schema: str | None, login: DatabaseLogin | None) -> None:
    settings = {}
    if wait_s is not None:
        settings = {"lock_timeout": f"{wait_s}s", "statement_timeout": f"{wait_s}s"}
    if schema:
        settings["search_path"] = '"' + schema.replace('"', '""') + '"'
    if settings:
        _set_in_transactions(engine, settings)
    if login is not None:
        login.follow(engine)


def _set_in_transactions(engine: Engine, settings: Mapping[str, str]) -> None:
    """Apply PostgreSQL's settings to every transaction, in one statement.

    Neither start-up parameters nor session settings work behind PgBouncer: it rejects the former, and in transaction
    mode the next transaction may run on another server connection.
    """
    calls = ", ".join(f"set_config('{name}', {_quote(value)}, true)" for name, value in settings.items())
    engine.update_execution_options(**{SETTINGS_OPTION: f"SELECT {calls}"})
    event.listen(engine, "begin", _begin)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _prepare_blocking_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.run_async(_set_pragmas)


async def _set_pragmas(driver: Any) -> None:
    for pragma in (f"busy_timeout = {SQLITE_WAIT_S * 1000}", *_PRAGMAS):
        await driver.execute(f"PRAGMA {pragma}")
    # SQLite ignores the busy time-out while another process changes a new file to WAL.
    for attempts_left in reversed(range(500)):
        try:
            await driver.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if not attempts_left:
                raise
            await asyncio.sleep(0.01)


def _begin(connection: Connection) -> None:
    # By default, SQLite's driver begins a transaction only before the first change, and never for CREATE TABLE.
    connection.exec_driver_sql(get_begin_statement(connection))

"""The database of users: SQLite in one file, or PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from auth.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).with_name("migrations")
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_MIGRATION_LOCK = 0x6174616C  # any number that every process of ours knows
# Durable when committed; and what is deleted, or moved to another page, is overwritten: it may be erased for a reason.
_ALWAYS = ("synchronous = FULL", "secure_delete = ON")
_BEGIN = "sqlite_begin"
# On SQLite such a transaction takes the write lock at once: one that reads first and then cannot have it would have
# to be undone.
WRITING = {_BEGIN: "BEGIN IMMEDIATE"}


def async_url(url: str) -> str:
    """Name the asynchronous driver in a platform's URL. Raises DatabaseUnavailable for another database."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _DRIVERS:
        raise DatabaseUnavailable("DATABASE_URL must start with postgresql:// or sqlite:///.")
    return f"{_DRIVERS[scheme]}://{rest}"


def open_engine(url: str) -> AsyncEngine:
    """Make an engine; nothing is connected yet. The folder of an SQLite file is made. Raises DatabaseUnavailable."""
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
    """Make an engine for threads and for commands that stream; with the options WRITING, for transactions that write.

    No statement waits for longer than `wait_s` seconds for a lock, or for PostgreSQL. Raises DatabaseUnavailable.
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


def _parse(url: str) -> URL:
    """Raises DatabaseUnavailable."""
    try:
        parsed = make_url(async_url(url))
    except (ArgumentError, ValueError):
        raise DatabaseUnavailable("DATABASE_URL cannot be read. Check it for unescaped characters.") from None
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        with reaching_database():
            Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return parsed


def file_of(url: str) -> Path | None:
    """SQLite's file. Raises DatabaseUnavailable."""
    parsed = _parse(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def check_file(url: str) -> None:
    """For SQLite, see that the file can be opened, before the asynchronous driver leaves a failed thread behind.

    Raises DatabaseUnavailable, which names the file.
    """
    path = file_of(url)
    if path is not None:
        try:
            sqlite3.connect(path).close()
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"DATABASE_URL: {path} cannot be opened: {error}.") from None


def _prepare_blocking_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _ALWAYS:
        connection.execute(f"PRAGMA {pragma}")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.run_async(_set_pragmas)


async def _set_pragmas(driver: Any) -> None:
    for pragma in ("busy_timeout = 5000", "foreign_keys = ON", *_ALWAYS):
        await driver.execute(f"PRAGMA {pragma}")
    # SQLite does not wait for its busy time-out when a new file changes to WAL while another process opens it.
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
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that only reads. Raises DatabaseUnavailable."""
    with reaching_database():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that writes. Raises DatabaseUnavailable."""
    with reaching_database():
        async with engine.connect() as connection:
            await connection.execution_options(**WRITING)
            async with connection.begin():
                yield connection


async def migrate(engine: AsyncEngine, *folders: Path) -> None:
    """Bring the tables up to date in one transaction; a second process waits for the first.

    `folders` hold the migrations of other rooms; a file `version_table` in each names the table that tells how far
    they have come. Raises DatabaseUnavailable.
    """
    wanted = (_SCRIPTS, *folders)
    async with reading(engine) as connection:
        if await connection.run_sync(_is_current, wanted):
            return
    async with writing(engine) as connection:
        await connection.run_sync(_upgrade, wanted)


def _is_current(connection: Connection, folders: Iterable[Path]) -> bool:
    """Whether nothing is to be done, found out without Alembic: importing it takes a fifth of a second."""
    for folder in folders:
        table = _version_table(folder)
        if not connection.dialect.has_table(connection, table):
            return False
        (head, *_) = sorted((path.stem for path in folder.glob("versions/[0-9]*.py")), reverse=True)
        versions = connection.execute(text(f"SELECT version_num FROM {table}")).scalars().all()  # noqa: S608  (ours)
        if versions != [head.partition("_")[0]]:
            return False
    return True


def _version_table(folder: Path) -> str:
    named = folder / "version_table"
    return named.read_text().strip() if named.exists() else "alembic_version"


def _upgrade(connection: Connection, folders: Iterable[Path]) -> None:
    from alembic import command
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    for folder in folders:
        try:
            command.upgrade(alembic_config(connection, folder), "head")
        except CommandError:
            raise DatabaseUnavailable("DATABASE_URL: its tables are of a newer release. Start that one.") from None


def alembic_config(connection: Connection, folder: Path = _SCRIPTS) -> Config:
    """Alembic's settings for an open connection, without an alembic.ini."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def ping(engine: AsyncEngine) -> None:
    """Raises DatabaseUnavailable."""
    with reaching_database():
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


def insert_into(table: Table, dialect: Dialect) -> Any:
    """An INSERT that takes `on_conflict_…`: both databases know it, SQLAlchemy has it for each apart."""
    return import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)


@contextmanager
def reaching_database() -> Iterator[None]:
    """Turn a driver's connection errors into DatabaseUnavailable."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError) as error:
        raise DatabaseUnavailable("The database cannot be reached. Check DATABASE_URL, or try again later.") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # of its subclasses only those above are no fault of ours
            raise
        raise DatabaseUnavailable("DATABASE_URL: the file is damaged, or is no SQLite database.") from error

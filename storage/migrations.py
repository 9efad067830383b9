"""Run migrations. Each package owns a directory of Alembic scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.engine import SQLITE_WAIT_S
from storage.errors import DatabaseUnavailable
from storage.transactions import WRITING, database_errors, reading

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x6174616C  # the number of PostgreSQL's advisory lock: arbitrary, but the same in all processes
_MIGRATION_WAIT_S = 60  # longer than for a statement: another process may be running migrations


async def migrate(engine: AsyncEngine, *directories: Path) -> None:
    """Apply the missing migrations of every directory in one transaction; a second process waits for the first.

    The optional file `version_table` in a directory names the table that records its version (by default
    `alembic_version`). Raises DatabaseUnavailable, also if PostgreSQL does not store text as UTF-8.
    """
    async with reading(engine) as connection:
        await _check_encoding(connection)
        if await connection.run_sync(_is_current, directories):
            return
    import alembic.command  # noqa: F401  (before SQLite is locked: on a busy machine the import takes seconds)

    async with _migrating(engine) as connection:
        await connection.run_sync(_upgrade, directories)


async def has_tables(engine: AsyncEngine, *directories: Path) -> bool:
    """Whether any migration was ever applied. Raises DatabaseUnavailable."""
    tables = list(map(_version_table, directories))
    async with reading(engine) as connection:
        return await connection.run_sync(
            lambda blocking: any(blocking.dialect.has_table(blocking, table) for table in tables)
        )


def alembic_config(connection: Connection, directory: Path) -> Config:
    """Configure Alembic for an open connection, without an alembic.ini."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(directory).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@asynccontextmanager
async def _migrating(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a writing transaction, which on SQLite waits up to a minute for another one. Raises DatabaseUnavailable."""
    with database_errors(engine.url):
        async with engine.connect() as connection:
            await _set_sqlite_wait(connection, _MIGRATION_WAIT_S)
            try:
                await connection.execution_options(**WRITING)
                async with connection.begin():
                    yield connection
            finally:
                await _set_sqlite_wait(connection, SQLITE_WAIT_S)


async def _check_encoding(connection: AsyncConnection) -> None:
    """Raise DatabaseUnavailable unless PostgreSQL stores text as UTF-8.

    With SQL_ASCII it counts bytes where the columns' lengths count characters, and with LATIN1 it rejects characters.
    """
    if connection.dialect.name != "postgresql":
        return
    encoding = await connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise DatabaseUnavailable(
            "The database must have the encoding UTF8.",
            reason=f"DATABASE_URL: the database {connection.engine.url.database} has the encoding {encoding}, but UTF8 "
            "is needed. Create one with ENCODING 'UTF8' TEMPLATE template0, and move existing data with pg_dump.",
        )


async def _set_sqlite_wait(connection: AsyncConnection, seconds: int) -> None:
    """Set SQLite's busy time-out through the driver, because SQLAlchemy's own statements would begin a transaction."""
    if connection.dialect.name == "sqlite":
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(f"PRAGMA busy_timeout = {seconds * 1000}")


def _is_current(connection: Connection, directories: Iterable[Path]) -> bool:
    """Whether no migration is missing, without Alembic: importing it takes a fifth of a second."""
    for directory in directories:
        table = _version_table(directory)
        if not connection.dialect.has_table(connection, table):
            return False
        newest = max(path.stem for path in directory.glob("versions/[0-9]*.py"))
        versions = connection.execute(text(f"SELECT version_num FROM {table}")).scalars().all()  # noqa: S608  (a constant)
        if versions != [newest.partition("_")[0]]:
            return False
    return True


def _version_table(directory: Path) -> str:
    path = directory / "version_table"
    return path.read_text().strip() if path.exists() else "alembic_version"


def read_revision(connection: Connection, directory: Path) -> str:
    """Return the revision of the newest migration that was applied."""
    table = _version_table(directory)
    revision: str = connection.execute(text(f"SELECT version_num FROM {table}")).scalar_one()  # noqa: S608  (a constant)
    return revision


def upgrade(connection: Connection, directory: Path, revision: str = "head") -> None:
    """Apply the migrations up to a revision. Raises DatabaseUnavailable if a newer release has migrated the tables."""
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(alembic_config(connection, directory), revision)
    except CommandError:
        raise DatabaseUnavailable(
            "The database's tables belong to a newer release. Start that release, or restore an older database."
        ) from None


def _upgrade(connection: Connection, directories: Iterable[Path]) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    for directory in directories:
        upgrade(connection, directory)

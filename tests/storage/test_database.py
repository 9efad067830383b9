"""Engines, transactions and migrations of both kinds of database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
from auth.tables import metadata
from storage.engine import open_blocking_engine, open_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import alembic_config, migrate
from storage.transactions import ping
from tests.support import postgres
from tests.support.ports import refusing_port


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A database of each kind, with the migrations of auth only."""
    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS)
    yield engine
    await engine.dispose()


def list_tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_migrations_match_the_tables_in_the_code(engine: AsyncEngine) -> None:
    """After all migrations, Alembic finds no difference between the database and the tables in the code."""

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_are_reversible(engine: AsyncEngine) -> None:
    """Every migration can be reverted and applied again."""
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync, auth.MIGRATIONS), "base"))
        assert await connection.run_sync(list_tables) == {"alembic_version"}
    await migrate(engine, auth.MIGRATIONS)
    async with engine.connect() as connection:
        assert await connection.run_sync(list_tables) == {"alembic_version", *metadata.tables}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_does_not_store_utf8_is_rejected(encoding: str, postgres_server: str) -> None:
    """Such a database would reject long names or characters later, while the gateway serves requests."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        engine = open_engine(f"{postgres_server}/{name}")
        with pytest.raises(DatabaseUnavailable) as caught:
            await migrate(engine, auth.MIGRATIONS)
        assert caught.value.reason is not None
        assert f"the database {name} has the encoding {encoding}, but UTF8 is needed" in caught.value.reason
        async with engine.connect() as client:
            assert await client.run_sync(list_tables) == set()
        await engine.dispose()
        postgres.execute_when_unused(connection, f"DROP DATABASE {name} WITH (FORCE)")


async def test_current_database_is_not_changed(engine: AsyncEngine) -> None:
    """Migrating a current database changes nothing: its version stays that of the newest migration."""
    newest = max(path.name for path in auth.MIGRATIONS.glob("versions/[0-9]*.py")).partition("_")[0]
    await migrate(engine, auth.MIGRATIONS)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [newest]


async def test_concurrent_migrations_succeed(database_url: str) -> None:
    """Eight processes can migrate an empty database at the same time, and none fails."""
    engines = [open_engine(database_url) for _ in range(8)]
    try:
        await asyncio.gather(*(migrate(engine, auth.MIGRATIONS) for engine in engines))
        async with engines[0].connect() as connection:
            assert await connection.run_sync(list_tables) == {"alembic_version", *metadata.tables}
    finally:
        for engine in engines:
            await engine.dispose()


async def test_interrupted_migration_is_rolled_back(database_url: str) -> None:
    """All migrations run in one transaction, on SQLite too, so that a failure leaves no table."""
    engine = open_engine(database_url)

    async def migrate_and_fail() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync, auth.MIGRATIONS), "head"))
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            await migrate_and_fail()
        async with engine.connect() as connection:
            assert await connection.run_sync(list_tables) == set()
    finally:
        await engine.dispose()


async def test_sqlite_is_configured(tmp_path: Path) -> None:
    """SQLite uses write-ahead logging, checks foreign keys and waits 5 s for a lock; its directory is created."""
    engine = open_engine(f"sqlite:///{tmp_path}/a/b/users.db")
    try:
        async with engine.connect() as connection:
            names = ("journal_mode", "foreign_keys", "busy_timeout")
            values = [(await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names]
    finally:
        await engine.dispose()
    assert values == ["wal", 1, 5000]


def test_blocking_sqlite_is_configured(tmp_path: Path) -> None:
    """Engines for threads and commands check foreign keys, overwrite deleted content and commit durably, too."""
    engine = open_blocking_engine(f"sqlite:///{tmp_path}/users.db")
    with engine.connect() as connection:
        names = ("foreign_keys", "secure_delete", "synchronous")
        values = [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in names]
    engine.dispose()
    assert values == [1, 1, 2]


async def test_directory_that_cannot_be_created_makes_the_database_unavailable(tmp_path: Path) -> None:
    """Opening a database whose parent is a file raises DatabaseUnavailable."""
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable):
        open_engine(f"sqlite:///{tmp_path}/file/users.db")


async def test_ping_succeeds_on_a_live_database(engine: AsyncEngine) -> None:
    """A ping of a live database returns without an error."""
    await ping(engine)


async def test_unreachable_server_is_unavailable() -> None:
    """A refused connection raises DatabaseUnavailable from a ping and from migrations, without the password."""
    with refusing_port() as port:
        engine = open_engine(f"postgresql://u:secret@127.0.0.1:{port}/db")
        try:
            for operation in (ping, migrate):
                with pytest.raises(DatabaseUnavailable) as caught:
                    await operation(engine)
                assert "secret" not in f"{caught.value} {caught.value.__cause__}"
        finally:
            await engine.dispose()


async def test_dropped_connection_is_replaced(postgres_url: str) -> None:
    """A connection that the server has closed is replaced without an error."""
    engine = open_engine(postgres_url)
    try:
        await ping(engine)
        other = open_engine(postgres_url)
        async with other.connect() as connection:
            drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            await connection.execute(text(f"{drop} AND pid <> pg_backend_pid()"))
        await other.dispose()
        await ping(engine)
    finally:
        await engine.dispose()


async def test_sqlite_path_that_is_a_directory_is_unavailable(tmp_path: Path) -> None:
    """An SQLite URL that names a directory raises DatabaseUnavailable."""
    engine = open_engine(f"sqlite:///{tmp_path}")
    before = set(threading.enumerate())
    try:
        with pytest.raises(DatabaseUnavailable):
            await ping(engine)
    finally:
        await engine.dispose()
        # After a failed connection the driver leaves its thread running, which needs the event loop in order to end.
        for thread in set(threading.enumerate()) - before:
            thread.join()


async def test_errors_do_not_contain_parameters(engine: AsyncEngine) -> None:
    """The message of a failed statement does not contain its parameters, such as password hashes."""
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="nowhere") as caught:
            await connection.execute(text("INSERT INTO nowhere VALUES (:hash)"), {"hash": "hush-hush"})
    assert "hush-hush" not in str(caught.value)

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
from auth.tables import metadata
from storage.engine import async_url, open_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import alembic_config, migrate
from storage.transactions import ping


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgres://u:p@host:1/db?sslmode=require", "postgresql+psycopg://u:p@host:1/db?sslmode=require"),
        ("postgresql://host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
        ("sqlite:///var/users.db", "sqlite+aiosqlite:///var/users.db"),
        ("sqlite:////var/users.db", "sqlite+aiosqlite:////var/users.db"),
        ("sqlite+aiosqlite:///users.db", "sqlite+aiosqlite:///users.db"),
    ],
)
def test_a_platform_s_url_names_an_asynchronous_driver(given: str, expected: str) -> None:
    """The URLs that platforms hand out are taken as they are."""
    assert async_url(given) == expected


@pytest.mark.parametrize("url", ["", "users.db", "mysql://u:secret@h/db", "postgresql+asyncpg://u:secret@h/db"])
def test_another_database_is_refused(url: str) -> None:
    """A URL of an unknown kind is refused without repeating its password."""
    with pytest.raises(DatabaseUnavailable, match="DATABASE_URL") as refused:
        open_engine(url)
    assert "secret" not in str(refused.value)


def test_an_unreadable_url_is_refused() -> None:
    """A URL that cannot be parsed is refused without repeating it."""
    with pytest.raises(DatabaseUnavailable, match="DATABASE_URL") as refused:
        open_engine("postgresql://u:secret@host:port/db")
    assert "secret" not in str(refused.value)


async def test_migrations_make_what_the_code_expects(engine: AsyncEngine) -> None:
    """After migrating, the database does not differ from the tables in the code."""

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_go_back(engine: AsyncEngine) -> None:
    """Every migration can be undone, and done again."""
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync, auth.MIGRATIONS), "base"))
        assert await connection.run_sync(tables) == {"alembic_version"}
    await migrate(engine, auth.MIGRATIONS)
    async with engine.connect() as connection:
        assert await connection.run_sync(tables) == {"alembic_version", *metadata.tables}


async def test_migrating_twice_changes_nothing(engine: AsyncEngine) -> None:
    """A start on a current database leaves it as it is."""
    await migrate(engine, auth.MIGRATIONS)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == ["0002"]


async def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    """Of eight starts at the same moment on an empty database, none fails."""
    engines = [open_engine(database_url) for _ in range(8)]
    try:
        await asyncio.gather(*(migrate(engine, auth.MIGRATIONS) for engine in engines))
        async with engines[0].connect() as connection:
            assert await connection.run_sync(tables) == {"alembic_version", *metadata.tables}
    finally:
        for engine in engines:
            await engine.dispose()


async def test_a_failed_migration_leaves_nothing(database_url: str) -> None:
    """Tables are made in one transaction, on SQLite too."""
    engine = open_engine(database_url)

    async def interrupted() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync, auth.MIGRATIONS), "head"))
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            await interrupted()
        async with engine.connect() as connection:
            assert await connection.run_sync(tables) == set()
    finally:
        await engine.dispose()


async def test_sqlite_is_prepared(tmp_path: Path) -> None:
    """SQLite writes ahead, checks foreign keys and waits 5 s for a lock; its folder is made."""
    engine = open_engine(f"sqlite:///{tmp_path}/a/b/users.db")
    try:
        async with engine.connect() as connection:
            names = ("journal_mode", "foreign_keys", "busy_timeout")
            found = [(await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names]
    finally:
        await engine.dispose()
    assert found == ["wal", 1, 5000]


async def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    """A database below a file is unavailable."""
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable):
        open_engine(f"sqlite:///{tmp_path}/file/users.db")


async def test_a_database_that_answers_is_alive(engine: AsyncEngine) -> None:
    """A ping of a live database returns."""
    await ping(engine)


async def test_a_server_that_is_away_is_reported() -> None:
    """A refused connection is DatabaseUnavailable for a ping and for migrations, without the password."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        engine = open_engine(f"postgresql://u:secret@127.0.0.1:{closed.getsockname()[1]}/db")
        try:
            for attempt in (ping, migrate):
                with pytest.raises(DatabaseUnavailable) as refused:
                    await attempt(engine)
                assert "secret" not in f"{refused.value} {refused.value.__cause__}"
        finally:
            await engine.dispose()


async def test_a_server_that_comes_back_is_used_again(postgres_url: str) -> None:
    """A connection that the server dropped is replaced, not reported."""
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


async def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    """A folder where the SQLite file should be is DatabaseUnavailable."""
    engine = open_engine(f"sqlite:///{tmp_path}")
    before = set(threading.enumerate())
    try:
        with pytest.raises(DatabaseUnavailable):
            await ping(engine)
    finally:
        await engine.dispose()
        # The driver does not wait for its thread after a failed connection; the thread needs the loop.
        for thread in set(threading.enumerate()) - before:
            thread.join()


async def test_errors_do_not_quote_values(engine: AsyncEngine) -> None:
    """A failing statement's message hides its parameters, password hashes among them."""
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="nowhere") as refused:
            await connection.execute(text("INSERT INTO nowhere VALUES (:hash)"), {"hash": "hush-hush"})
    assert "hush-hush" not in str(refused.value)

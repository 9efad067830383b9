"""Migrations: Alembic is imported only when one is missing, and a newer database is rejected."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import event, text

from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import alembic_config, migrate
from tests.support.paths import ROOT

DIRECTORIES = [ROOT / "auth" / "migrations", ROOT / "monitoring" / "migrations"]

START = """
import asyncio, sys
from pathlib import Path
from storage.engine import open_engine
from storage.migrations import migrate

async def start():
    engine = open_engine(sys.argv[1])
    await migrate(engine, *map(Path, sys.argv[2:]))
    await engine.dispose()

asyncio.run(start())
print("alembic" in sys.modules)
"""

# A finder that writes to the database when Alembic is imported, which fails if the database is locked.
WRITE = """
import sqlite3, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "alembic.command":
            connection = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"), timeout=0)
            connection.execute("CREATE TABLE written (id INTEGER)")
            connection.close()

sys.meta_path.insert(0, Finder())
"""


def revision_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("versions/[0-9]*.py"))


def test_current_database_loads_no_alembic(database_url: str) -> None:
    """The first start imports Alembic and migrates both packages' tables; the second does not import it."""
    command = [sys.executable, "-c", START, database_url, *map(str, DIRECTORIES)]
    first, second = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    assert (first.stdout, second.stdout) == ("True\n", "False\n")


def test_alembic_is_imported_before_sqlite_is_locked(tmp_path: Path) -> None:
    """Another process can write while Alembic is imported, which takes seconds on a busy machine."""
    path = tmp_path / "any.db"
    subprocess.run([sys.executable, "-c", WRITE + START, f"sqlite:///{path}", *map(str, DIRECTORIES)], check=True)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM written").fetchone() == (0,)


async def test_migrations_wait_longer_for_sqlite_than_statements(tmp_path: Path) -> None:
    """The migrations wait up to a minute for a lock of SQLite; transactions before and after wait five seconds."""
    waits_ms = []
    engine = open_engine(f"sqlite:///{tmp_path}/any.db")
    event.listen(
        engine.sync_engine,
        "begin",
        lambda connection: waits_ms.append(connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()),
        insert=True,
    )
    await migrate(engine, DIRECTORIES[0])
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await engine.dispose()
    assert waits_ms == [5000, 60_000, 5000]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=["auth", "monitoring"])
async def test_file_names_begin_with_their_revision(directory: Path, tmp_path: Path) -> None:
    """The name of the last migration's file begins with the revision that Alembic calls the head."""
    engine = open_engine(f"sqlite:///{tmp_path}/any.db")
    async with engine.connect() as connection:
        config = await connection.run_sync(alembic_config, directory)
    await engine.dispose()
    scripts = ScriptDirectory.from_config(config)
    names = revision_files(directory)
    assert names[-1].partition("_")[0] == scripts.get_current_head()
    assert len(names) == len(list(scripts.walk_revisions()))


async def test_database_of_a_newer_release_is_rejected(database_url: str) -> None:
    """A database with an unknown revision raises DatabaseUnavailable, which mentions a newer release."""
    engine = open_engine(database_url)
    await migrate(engine, DIRECTORIES[0])
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnavailable, match="newer release"):
        await migrate(engine, DIRECTORIES[0])
    await engine.dispose()

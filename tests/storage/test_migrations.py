"""Whether anything is to be migrated is known without Alembic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from storage.engine import check_sqlite_file, open_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import alembic_config, migrate

ROOT = Path(__file__).parents[2]
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


def revision_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("versions/[0-9]*.py"))


def test_a_current_database_starts_without_alembic(database_url: str) -> None:
    """The first start migrates both packages' tables; the second sees that nothing is to be done, and is quicker."""
    command = [sys.executable, "-c", START, database_url, *map(str, DIRECTORIES)]
    first, second = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    assert (first.stdout, second.stdout) == ("True\n", "False\n")


@pytest.mark.parametrize("folder", DIRECTORIES, ids=["auth", "monitoring"])
async def test_files_are_named_for_their_revisions(folder: Path, tmp_path: Path) -> None:
    """The last migration's file begins with the number that Alembic calls the head."""
    engine = open_engine(f"sqlite:///{tmp_path}/any.db")
    async with engine.connect() as connection:
        config = await connection.run_sync(alembic_config, folder)
    await engine.dispose()
    scripts = ScriptDirectory.from_config(config)
    names = revision_files(folder)
    assert names[-1].partition("_")[0] == scripts.get_current_head()
    assert len(names) == len(list(scripts.walk_revisions()))


async def test_tables_of_a_newer_release(database_url: str) -> None:
    """A release that has been rolled back says that the database is ahead of it, in one sentence."""
    engine = open_engine(database_url)
    await migrate(engine, DIRECTORIES[0])
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnavailable, match="newer release"):
        await migrate(engine, DIRECTORIES[0])
    await engine.dispose()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A path that is no file is refused before anything else is done, with its name."""
    with pytest.raises(DatabaseUnavailable, match=f"DATABASE_URL: {tmp_path} cannot be opened"):
        check_sqlite_file(f"sqlite:///{tmp_path}")

"""`atalaya backup` and `atalaya restore` on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import inspect

from api.cli import run
from api.commands.backup.contents import list_tables
from api.commands.database import run_with_engine
from api.settings import Settings
from monitoring.tasks.runs import Task
from monitoring.tasks.store import TaskRunStore
from tests.api.commands.records.databases import lose_database, on_database, read_rows


def test_a_lost_database_is_restored(environment: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """`restore` brings back every row of a lost database and verifies the ledger; the audit log has both commands."""
    rows = read_rows(environment)
    assert run(["backup", "b"]) == 0
    assert Path("b").stat().st_mode & 0o077 == 0
    lose_database(environment)
    capsys.readouterr()
    assert run(["restore", "b", "--json"]) == 0
    restored = json.loads(capsys.readouterr().out)
    assert (restored["ledger_entries"], restored["models"]) == (6, [])
    assert read_rows(environment) == rows
    assert run(["backup", "second"]) == 0
    assert run(["audit", "--event", "backup"]) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:]] == ["restored", "created"]


def test_rows_move_between_databases(environment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup of PostgreSQL can be restored to SQLite, and one of SQLite to another file."""
    rows = read_rows(environment)
    assert run(["backup", "b"]) == 0
    url = f"sqlite:///{tmp_path}/other/copy.db"
    monkeypatch.setenv("DATABASE_URL", url)
    assert run(["restore", "b"]) == 0
    assert read_rows(Settings(database_url=url)) == rows


def test_an_invalid_key_restores_nothing(environment: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid public key is rejected before the first row is written, so that the command can be repeated."""
    assert run(["backup", "b"]) == 0
    lose_database(environment)
    capsys.readouterr()
    assert run(["restore", "b", "--public-key", "no key"]) == 1
    assert "public key" in capsys.readouterr().err
    assert run(["restore", "b"]) == 0


def test_runs_are_recorded(environment: Settings) -> None:
    """A backup records its successes and failures as runs of the backup task."""
    assert run(["backup", "b"]) == 0
    assert run(["backup", "b"]) == 1  # it never replaces a file
    (runs,) = run_with_engine(environment, lambda engine: TaskRunStore(engine).list())
    assert (runs.task, runs.failures, runs.succeeded_at is not None) == (Task.BACKUP, 1, True)


def test_every_table_belongs_to_the_backup(environment: Settings) -> None:
    """A backup has every table that the migrations create, except those with the migrations' own versions."""
    names = on_database(environment, lambda connection: inspect(connection).get_table_names())
    assert set(names) - set(list_tables()) == {"alembic_version", "audit_version"}

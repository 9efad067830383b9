"""A backup with the tables of release 0.1.0, restored by this one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from api.cli import run
from api.commands.backup.backup import BackupRequest, write_backup
from monitoring.chains.signing import new_private_key
from storage.engine import open_blocking_engine

RELEASE = Path(__file__).with_name("release_0_1_0")
FACTS = json.loads((RELEASE / "facts.json").read_text())


def test_a_backup_of_an_earlier_release_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup keeps the tables of its release; the restore brings them up to date, and the records verify."""
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript((RELEASE / "database.sql").read_text())
    engine = open_blocking_engine(f"sqlite:///{tmp_path}/old.db")
    with (tmp_path / "old.backup").open("wb") as file, engine.begin() as snapshot:
        write_backup(file, snapshot, BackupRequest())
    engine.dispose()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    assert run(["restore", "old.backup", "--public-key", FACTS["public_key"], "--json"]) == 0
    restored = json.loads(capsys.readouterr().out)
    assert restored["ledger_entries"] > 0
    assert run(["db", "init"]) == 0
    assert run(["users", "list"]) == 0
    assert "ana" in capsys.readouterr().out

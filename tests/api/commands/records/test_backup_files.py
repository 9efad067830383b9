"""The file of a backup: complete under its name, or absent; a success is recorded only after everything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from api.cli import run
from api.commands.backup.files import open_new_file
from api.commands.database import run_with_engine
from api.errors import CommandFailed
from api.settings import Settings
from monitoring.tasks.store import TaskRunStore


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    """Until a new file is complete it has another name, so that a killed process leaves no incomplete backup."""
    path = tmp_path / "b"
    with open_new_file(path) as file:
        file.write(b"x")
        assert [each.name for each in tmp_path.iterdir()] == [".b.partial"]
    assert [each.name for each in tmp_path.iterdir()] == ["b"]
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"x", 0o600)


def test_no_file_is_replaced(tmp_path: Path) -> None:
    """A file that exists, or appears while the new one is written, stays as it is."""
    path = tmp_path / "b"
    with pytest.raises(CommandFailed, match="File exists"), open_new_file(path):
        path.write_bytes(b"other")
    with pytest.raises(CommandFailed, match="already exists"), open_new_file(path):
        pass
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"other"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_standard_output_is_a_failure(
    environment: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup whose last bytes cannot be written to standard output fails, and is recorded as failed."""
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert run(["backup", "-"]) == 1
    assert "Standard output cannot be written: No space left on device." in capsys.readouterr().err
    (runs,) = run_with_engine(environment, lambda engine: TaskRunStore(engine).list())
    assert (runs.failures, runs.succeeded_at) == (1, None)

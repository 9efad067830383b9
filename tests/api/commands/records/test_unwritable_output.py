"""Commands whose output cannot be written: the message names the output, not the database or the registry."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from api.cli import run
from api.commands.database import CommandEvent, write_event
from api.settings import Settings
from model.registry.files import FileRegistry
from tests.support.paths import ARTEFACT

Captured = pytest.CaptureFixture[str]
FULL = "error: Standard output cannot be written: No space left on device.\n"


@pytest.fixture
def full() -> Iterator[TextIO]:
    """A file on a full disk."""
    with Path("/dev/full").open("w") as file:
        yield file


@pytest.fixture
def closed_pipe() -> Iterator[TextIO]:
    """A pipe that its reader has closed."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        yield file


@pytest.fixture
def registry(environment: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FileRegistry:
    """The gateway's registry of models, which has one version."""
    assert environment.ledger_key()
    registry = FileRegistry(tmp_path / "models")
    registry.add(ARTEFACT)
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{registry.root}")
    return registry


def run_with_output(stdout: TextIO, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        return run(list(arguments))


@pytest.mark.parametrize("command", [("ledger", "export", "-"), ("backup", "-"), ("users", "list")], ids=" ".join)
def test_a_closed_pipe_is_quiet(
    command: tuple[str, ...],
    environment: Settings,
    closed_pipe: TextIO,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    """If the reader of the pipe has exited, the command ends without a message, as if killed by SIGPIPE."""
    assert environment.ledger_key()
    assert run_with_output(closed_pipe, monkeypatch, *command) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", [("ledger", "export", "-"), ("backup", "-")], ids=" ".join)
def test_a_full_disk_is_named(
    command: tuple[str, ...], registry: FileRegistry, full: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A full standard output is named as such, also while a backup copies files of the registry to it."""
    assert registry.list_models()
    assert run_with_output(full, monkeypatch, *command) == 1
    assert capsys.readouterr().err == FULL


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_export_of_the_audit_log_to_a_full_disk_is_not_reported_as_done(
    environment: Settings, full: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """`audit --export -` reports the number of exported entries only if standard output has taken all of them."""
    write_event(environment, CommandEvent("dataset", "built"))
    assert run_with_output(full, monkeypatch, "audit", "--export", "-") == 1
    assert capsys.readouterr().err == FULL


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_cannot_grow_is_named(registry: FileRegistry, capsys: Captured) -> None:
    """A backup that fails while it copies a model to a file names that file, and neither the database nor the model."""
    assert registry.list_models()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, hard))
    try:
        assert run(["backup", "b"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err == "error: b cannot be written: File too large.\n"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_pipe_that_closes_during_the_models_is_quiet(
    registry: FileRegistry, closed_pipe: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A backup whose pipe is closed while it copies a model does not blame the registry."""
    assert registry.list_models()
    assert run_with_output(closed_pipe, monkeypatch, "backup", "-") == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_backup_is_not_written_to_a_terminal(
    environment: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A backup is binary: the command does not write it to a terminal."""
    assert environment.ledger_key()
    main, terminal = os.openpty()
    with os.fdopen(main), os.fdopen(terminal, "w") as stdout:
        assert run_with_output(stdout, monkeypatch, "backup", "-") == 1
    assert "Name a file, or redirect standard output." in capsys.readouterr().err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", [("ledger", "export"), ("audit", "--export")], ids=" ".join)
def test_a_folder_that_does_not_exist_is_named(
    command: tuple[str, ...], environment: Settings, capsys: Captured
) -> None:
    """An export to a folder that does not exist is an error of the file, not of the ledger or the audit log."""
    assert environment.ledger_key()
    assert run([*command, "nowhere/e.jsonl"]) == 1
    assert capsys.readouterr().err == "error: nowhere/e.jsonl cannot be written: No such file or directory.\n"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_last_bytes_are_not_reported_again(
    environment: Settings, full: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """After an error of standard output nothing is left in its buffer, for which Python would report it again."""
    assert environment.ledger_key()
    assert run_with_output(full, monkeypatch, "users", "list", "--json") == 1
    assert capsys.readouterr().err == "error: No space left on device\n"
    full.flush()

"""`atalaya clients` and `atalaya users list`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import run
from api.commands.database import run_with_engine
from api.settings import load_settings
from auth.clients import ClientStore
from auth.principal import Scope
from tests.support.gateway import PASSWORD, create_database

Command = Callable[..., int]
Capture = pytest.CaptureFixture[str]
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a command in an empty directory with a database."""
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")

    def run_with_input(*arguments: str, stdin: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return run(list(arguments))

    return run_with_input


def test_client_life_cycle(command: Command, capsys: Capture) -> None:
    """The commands add, rotate, disable, enable and delete a client, and record each change in the audit log."""
    assert command("clients", "add", "maps", "--json") == 0
    added = json.loads(capsys.readouterr().out)
    assert added["created_at"].endswith("Z")
    assert command("clients", "rotate-secret", "maps", "--json") == 0
    rotated = json.loads(capsys.readouterr().out)
    assert rotated["client_id"] == added["client_id"]
    assert rotated["client_secret"] != added["client_secret"]
    assert command("clients", "disable", "maps") == 0
    assert command("clients", "enable", "maps") == 0
    capsys.readouterr()
    assert command("clients", "delete", "maps", stdin="n\n") == 1
    assert "Use --yes in scripts" in capsys.readouterr().err
    assert command("clients", "delete", "maps", "--yes") == 0
    assert command("clients", "delete", "maps", "--yes") == 1
    assert capsys.readouterr().err == "error: There is no client maps. `atalaya clients list` prints the names.\n"
    assert command("audit", "--event", "client", "--json") == 0
    outcomes = [entry["outcome"] for entry in json.loads(capsys.readouterr().out)]
    assert outcomes == ["created", "secret_rotated", "disabled", "enabled", "deleted"]


@pytest.mark.parametrize("columns", ["20", "80"])
def test_piped_tables_cut_nothing(
    command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """A table in a pipe has one line for each row, with whole identifiers, however narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", columns)
    scopes = "predict predictions:read models:read metrics:read"
    assert command("clients", "add", "a-client-with-a-rather-long-name" * 2, "--scope", scopes) == 0
    client_id = ID.search(capsys.readouterr().out)
    assert client_id is not None
    assert command("clients", "list") == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "a-client" in line]
    assert client_id[0] in row
    assert "predictions:read" in row


def test_user_ids_and_times(command: Command, capsys: Capture) -> None:
    """`users list` prints times to the second, and ids on demand."""
    command("users", "add", "ana", "--role", "client", "--password-stdin", stdin=PASSWORD)
    capsys.readouterr()
    assert command("users", "list") == 0
    out = capsys.readouterr().out
    assert re.search(r"ana +client +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d *$", out, re.MULTILINE), out
    assert not ID.search(out)
    assert command("users", "list", "--ids") == 0
    assert ID.search(capsys.readouterr().out)


def test_control_characters_are_escaped(command: Command, capsys: Capture) -> None:
    """`clients list` escapes control characters in a name, which earlier releases accepted."""
    run_with_engine(load_settings(), lambda engine: ClientStore(engine).add("two\x1b[2Jlines", {Scope.PREDICT}))
    assert command("clients", "list") == 0
    out = capsys.readouterr().out
    assert "two\\x1b[2Jlines" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "at least 1 character"),
        ("x" * 65, "at most 64 characters"),
        ("a\nb\x1b[31m", "must be printable."),
        ("  ", "must not consist of spaces only."),
    ],
    ids=["empty", "long", "control characters", "spaces"],
)
def test_names_are_checked(command: Command, capsys: Capture, name: str, problem: str) -> None:
    """The rule for the names of API keys applies to the names of new clients."""
    assert command("clients", "add", name) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Invalid value for 'name': ")
    assert problem in error
    assert command("clients", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []

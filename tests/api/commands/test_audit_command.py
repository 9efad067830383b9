"""`atalaya audit`: what commands record, and printing, verifying, exporting and pruning the log."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import sqlite3
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from api.cli import run
from api.commands.database import run_with_engine
from api.settings import load_settings
from auth.tokens.jws import generate_signing_key
from monitoring.audit.events import new_event
from monitoring.audit.store import AuditStore
from tests.support.gateway import PASSWORD, create_database

ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"

Command = Callable[..., str]
Run = Callable[..., Any]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs a command in an empty folder and returns its exit status and its output."""
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    monkeypatch.setenv("AUTH__SIGNING_KEY_FILE", str(tmp_path / "keys.pem"))
    (tmp_path / "keys.pem").write_text(generate_signing_key("ES256"))

    def start(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        (tmp_path / "stdin").write_text(stdin)
        with (tmp_path / "stdin").open() as file:
            monkeypatch.setattr("sys.stdin", file)
            status = run(list(arguments))
        output = capsys.readouterr()
        return status, output.out, output.err

    return start


@pytest.fixture
def command(start: Run) -> Command:
    """A function that runs a command, which must succeed, and returns its standard output."""

    def command(*arguments: str, stdin: str = "") -> str:
        status, out, err = start(*arguments, stdin=stdin)
        assert status == 0, err
        text: str = out
        return text

    return command


def add_user(command: Command, name: str = "ana") -> None:
    command("users", "add", name, "--role", "client", "--password-stdin", stdin=PASSWORD)


def read_log(command: Command, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command("audit", "--json", *options))
    return found


def change_rows(tmp_path: Path, statement: str) -> None:
    with sqlite3.connect(tmp_path / "var" / "atalaya.db") as connection:
        connection.execute(statement)
    connection.close()


def test_commands_are_recorded(command: Command) -> None:
    """Changes to users, clients, keys and the signing key are recorded with the operating system's user."""
    add_user(command)
    command("users", "passwd", "ana", "--password-stdin", stdin=f"{PASSWORD} staple")
    command("token", "--user", "ana", "--password-stdin", stdin=f"{PASSWORD} staple")
    key = json.loads(command("keys", "create", "--user", "ana", "--name", "maps", "--json"))
    command("keys", "rotate", key["id"])
    command("keys", "revoke", key["id"])
    command("keys", "rotate", "--yes")
    command("users", "disable", "ana")
    client = json.loads(command("clients", "add", "maps", "--json"))
    command("clients", "disable", "maps")
    found = read_log(command)
    assert [(entry["event"], entry["outcome"]) for entry in found] == [
        ("user", "created"),
        ("user", "changed"),
        ("token", "issued"),
        ("key", "created"),
        ("key", "rotated"),
        ("key", "revoked"),
        ("signing_key", "rotated"),
        ("user", "disabled"),
        ("client", "created"),
        ("client", "disabled"),
    ]
    assert {entry["actor"] for entry in found} == {ME}
    assert [entry["detail"] for entry in found[:2]] == [{"role": "client"}, {"fields": "password"}]
    assert found[3]["target"] == f"key:{key['id']}"
    assert found[-1]["target"] == f"client:{client['client_id']}"
    assert PASSWORD not in str(found)


def test_a_failed_login_of_a_command_is_recorded(command: Command, start: Run) -> None:
    """A login rejected on the command line is recorded like one rejected over HTTP."""
    add_user(command)
    assert start("token", "--user", "ana", "--password-stdin", stdin="wrong horse battery")[0] == 1
    last = read_log(command)[-1]
    assert (last["event"], last["outcome"], last["detail"]) == ("token", "refused", {"code": "bad_credentials"})


def test_entries_are_printed_as_lines(command: Command) -> None:
    """Without --json each selected entry is one line."""
    add_user(command)
    command("clients", "add", "maps")
    first, second = command("audit").splitlines()
    assert first.startswith("1 20")
    assert f" user created actor={ME} target=user:ana " in first
    assert first.endswith(" role=client")
    assert second.endswith(f" client created actor={ME} target=client:maps")
    assert command("audit", "--event", "client").splitlines() == [second]
    assert command("audit", "--since", "2020-01-01").splitlines() == [first, second]
    assert command("audit", "--since", "2999-01-01T00:00:00Z") == ""


def test_a_changed_entry_cannot_forge_an_output_line(command: Command, tmp_path: Path) -> None:
    """A value that was changed in the database is printed as one quoted word without control characters."""
    add_user(command)
    change_rows(tmp_path, "UPDATE audit_events SET actor = 'ana' || char(10, 27) || '2 forged actor=root'")
    (line,) = command("audit").splitlines()
    assert 'actor="ana\\n\\u001b2 forged actor=root"' in line


def test_a_malformed_time_is_a_usage_error(start: Run) -> None:
    """A time that is not in ISO 8601 is a usage error that shows an example."""
    status, _, err = start("audit", "--since", "yesterday")
    assert status == 2
    assert "2026-11-03" in err


def test_an_export_can_be_verified_elsewhere(command: Command, start: Run, tmp_path: Path) -> None:
    """The export is a private file of JSON lines, from which every hash can be recomputed."""
    add_user(command)
    command("clients", "add", "maps")
    assert start("audit", "--export", "audit.jsonl") == (0, "", "2 entries exported.\n")
    text = (tmp_path / "audit.jsonl").read_text()
    assert command("audit", "--export", "-") == text
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600
    previous = "0" * 64
    for line in text.splitlines():
        entry = json.loads(line)
        entry["detail"] = json.dumps(entry["detail"], sort_keys=True, separators=(",", ":"))
        digest = entry.pop("hash")
        assert entry["previous"] == previous
        assert hashlib.sha256(json.dumps(list(entry.values()), separators=(",", ":")).encode()).hexdigest() == digest
        previous = digest


def test_the_result_of_an_export_is_a_document(command: Command, start: Run, tmp_path: Path) -> None:
    """With --json, an export prints how many entries it wrote; it cannot also write them to standard output."""
    add_user(command)
    status, out, err = start("audit", "--export", "audit.jsonl", "--json")
    assert (status, json.loads(out), err) == (0, {"entries": 1}, "")
    assert (tmp_path / "audit.jsonl").read_text().count("\n") == 1
    status, _, err = start("audit", "--export", "-", "--json")
    assert (status, "--json also writes to standard output. Name a file, or omit --json." in err) == (2, True)


def test_a_changed_entry_is_named(command: Command, start: Run, tmp_path: Path) -> None:
    """`audit verify` prints an anchor; after a change it names the changed entry, with exit status 1."""
    add_user(command)
    anchor = command("audit", "verify").split()[-1]
    assert anchor.startswith("1:")
    command("clients", "add", "maps")
    assert json.loads(command("audit", "verify", "--anchor", anchor, "--json"))["ok"]
    change_rows(tmp_path, "UPDATE audit_events SET actor = 'nobody' WHERE seq = 2")
    status, out, err = start("audit", "verify")
    assert (status, out) == (1, "")
    assert err.startswith("error: Entry 2 (")
    status, out, _ = start("audit", "verify", "--json")
    found = json.loads(out)
    assert (status, found["ok"], found["entries"]) == (1, False, 1)
    assert start("audit", "verify", "--anchor", "x")[0] == 2
    assert start("audit", "verify", "--anchor", f"1:{'0' * 64}")[0] == 1


def test_old_entries_are_pruned(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """`audit prune` removes entries older than the limit and is recorded; the rest verifies."""
    assert command("audit", "prune", "--yes") == "0 entries older than 365 days removed.\n"
    old = replace(new_event("user", "created", actor="olga"), at=datetime(2020, 1, 1, tzinfo=UTC))
    run_with_engine(load_settings(), lambda engine: AuditStore(engine).append([old]))
    monkeypatch.setenv("MONITORING__AUDIT_KEEP_DAYS", "30")
    assert command("audit", "prune", "--dry-run") == "1 entry older than 30 days would be removed.\n"
    assert json.loads(command("audit", "prune", "--dry-run", "--json")) == {"would_remove": 1}
    assert json.loads(command("audit", "prune", "--yes", "--json")) == {"removed": 1}
    (entry,) = read_log(command)
    assert (entry["event"], entry["outcome"], entry["actor"]) == ("audit", "pruned", ME)
    assert command("audit", "verify").startswith("1 entry, unchanged.")


def test_a_changed_log_is_not_pruned(start: Run, tmp_path: Path) -> None:
    """`audit prune` fails with the problem that `verify` reports, and removes nothing."""
    for name in ("ana", "bob"):
        assert start("users", "add", name, "--role", "client", "--password-stdin", stdin=PASSWORD)[0] == 0
    change_rows(tmp_path, "UPDATE audit_events SET at = '2020' || substr(at, 5)")
    problem = start("audit", "verify")[2].strip()
    status, out, error = start("audit", "prune", "--yes")
    assert (status, out) == (1, "")
    assert error.startswith(f"{problem} The remaining entries were kept.")
    assert problem == start("audit", "verify")[2].strip()


def test_the_signing_key_is_not_rotated_unrecorded(start: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database for the audit log, the signing key is not rotated."""
    before = (tmp_path / "keys.pem").read_text()
    (tmp_path / "file").touch()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/file/gateway.db")
    assert start("keys", "rotate", "--yes")[0] == 1
    assert (tmp_path / "keys.pem").read_text() == before

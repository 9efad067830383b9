"""`atalaya keys` and `atalaya classify --key`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import run
from auth.tokens.jws import generate_signing_key

PASSWORD = "correct horse battery"
Command = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> Command:
    """Run a command in a folder whose database has the user `ana`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD))
    assert run(["users", "add", "ana", "--role", "client", "--password-stdin"]) == 0
    capsys.readouterr()
    return lambda *arguments: run(list(arguments))


def test_the_life_of_a_key(command: Command, capsys: Capture) -> None:
    """A key is made, listed without its secret, rotated and revoked."""
    assert command("keys", "create", "--user", "ana", "--name", "maps", "--rate", "60/minute", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"].startswith(f"atl_{made['id']}_")
    assert (made["scopes"], made["rate"], made["user"]) == (["predict"], "60/minute", "ana")
    assert command("keys", "list", "--user", "ana", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    assert command("keys", "rotate", made["id"], "--overlap-hours", "1", "--json") == 0
    rotated = json.loads(capsys.readouterr().out)
    assert rotated["key"] != made["key"]
    assert rotated["previous_until"]
    assert command("keys", "revoke", made["id"], "--json") == 0
    assert json.loads(capsys.readouterr().out)["revoked_at"]
    assert command("keys", "rotate", made["id"]) == 1
    assert "revoked" in capsys.readouterr().err


def test_the_key_alone_is_printed(command: Command, capsys: Capture) -> None:
    """Standard output holds the key and nothing else, for scripts; people get a table of keys."""
    options = ["--scope", "predict predictions:read", "--expires-days", "7", "--address", "10.0.0.0/8"]
    more = ["--address", "::1", "--monthly-requests", "10", "--monthly-megapixels", "20"]
    assert command("keys", "create", "--user", "ana", "--name", "maps", *options, *more) == 0
    output = capsys.readouterr()
    key_id = output.out.split("_")[1]
    assert output.out.count("\n") == 1
    assert "shown only once" in output.err
    assert command("keys", "list") == 0
    assert key_id in capsys.readouterr().out
    command("keys", "list", "--json")
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["addresses"], listed["monthly_requests"]) == (["10.0.0.0/8", "::1/128"], 10)
    assert command("keys", "revoke", key_id) == 0
    assert capsys.readouterr().out == f"{key_id} (maps): revoked.\n"


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        (["--scope", "users:admin"], 1, "predict"),
        (["--user", "nobody"], 1, "nobody"),
        (["--address", "here"], 2, "--address"),
        (["--rate", "often"], 2, "--rate"),
        (["--expires-days", "9999"], 2, "--expires-days"),
        (["--name", ""], 2, "--name"),
        (["--monthly-requests", "-1"], 2, "--monthly-requests"),
    ],
)
def test_unfit_options(command: Command, capsys: Capture, options: list[str], status: int, word: str) -> None:
    """An option that does not fit is one line that names it."""
    assert command("keys", "create", "--user", "ana", "--name", "maps", *options) == status
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("act", ["rotate", "revoke"])
def test_an_unknown_key(command: Command, capsys: Capture, act: str) -> None:
    """A key that is not there is one line."""
    assert command("keys", act, "nonsense") == 1
    assert "no such API key" in capsys.readouterr().err


def test_without_an_id_the_signing_key_is_rotated(
    command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`keys rotate` alone puts a new signing key in front of the old one."""
    path = tmp_path / "keys.pem"
    path.write_text(generate_signing_key("ES256"))
    monkeypatch.setenv("AUTH__SIGNING_KEY_FILE", str(path))
    assert command("keys", "rotate") == 0
    assert "new signing key" in capsys.readouterr().out
    assert command("keys", "rotate", "--json") == 0
    assert "done" in json.loads(capsys.readouterr().out)
    assert path.read_text().count("BEGIN PRIVATE KEY") == 3


def test_classify_needs_a_credential(command: Command, capsys: Capture) -> None:
    """Without a token and without a key `classify` is wrongly used."""
    assert command("classify", "--url", "http://127.0.0.1:1", "a.png") == 2
    assert "--key" in capsys.readouterr().err

"""`atalaya keys` and `atalaya classify --key`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import run
from auth.tokens.jws import generate_signing_key
from tests.support.gateway import PASSWORD, create_database

Command = Callable[..., int]
Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> Command:
    """Run a command in a folder whose database has the user `ana`."""
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD))
    assert run(["users", "add", "ana", "--role", "client", "--password-stdin"]) == 0
    capsys.readouterr()

    def run_with_input(*arguments: str, stdin: str = "", terminal: bool = False) -> int:
        monkeypatch.setattr("sys.stdin", Terminal(stdin) if terminal else io.StringIO(stdin))
        return run(list(arguments))

    return run_with_input


def test_key_life_cycle(command: Command, capsys: Capture) -> None:
    """A key is created, listed without its secret, rotated and revoked."""
    assert command("keys", "create", "--user", "ana", "--name", "maps", "--rate", "60/minute", "--json") == 0
    created = json.loads(capsys.readouterr().out)
    assert created["key"].startswith(f"atl_{created['id']}_")
    assert (created["scopes"], created["rate"], created["user"]) == (["predict"], "60/minute", "ana")
    assert command("keys", "list", "--user", "ana", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [{name: value for name, value in created.items() if name != "key"}]
    assert command("keys", "rotate", created["id"], "--overlap-hours", "1", "--json") == 0
    rotated = json.loads(capsys.readouterr().out)
    assert rotated["key"] != created["key"]
    assert rotated["previous_until"]
    assert command("keys", "revoke", created["id"], "--json") == 0
    assert json.loads(capsys.readouterr().out)["revoked_at"]
    assert command("keys", "rotate", created["id"]) == 1
    assert "revoked" in capsys.readouterr().err


def test_only_the_key_is_printed(command: Command, capsys: Capture) -> None:
    """`keys create` prints only the new key to standard output, for scripts; `keys list` prints a table."""
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
        (["--rate", "often"], 2, "--rate: must be N/second"),
        (["--expires-days", "9999"], 2, "--expires-days"),
        (["--name", ""], 2, "--name"),
        (["--name", " "], 2, "--name: must not consist of spaces only."),
        (["--monthly-requests", "-1"], 2, "--monthly-requests"),
    ],
)
def test_invalid_options(command: Command, capsys: Capture, options: list[str], status: int, word: str) -> None:
    """An invalid option is rejected with one line that names it."""
    assert command("keys", "create", "--user", "ana", "--name", "maps", *options) == status
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_unknown_key(command: Command, capsys: Capture, action: str) -> None:
    """An unknown key id fails with one line."""
    assert command("keys", action, "nonsense") == 1
    assert "no such API key" in capsys.readouterr().err


def test_rotate_without_id_rotates_the_signing_key(
    command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`keys rotate` without an id adds a new signing key to the old ones, after a confirmation or with --yes."""
    path = tmp_path / "keys.pem"
    path.write_text(generate_signing_key("ES256"))
    monkeypatch.setenv("AUTH__SIGNING_KEY_FILE", str(path))
    assert command("keys", "rotate", stdin="y\n") == 1
    assert capsys.readouterr().err == (
        "error: Nothing was changed, because there is no terminal to ask for confirmation. Use --yes in scripts.\n"
    )
    for declined in ("", "n\n"):
        assert command("keys", "rotate", stdin=declined, terminal=True) == 1
        assert path.read_text().count("BEGIN PRIVATE KEY") == 1
    capsys.readouterr()
    assert command("keys", "rotate", stdin="y\n", terminal=True) == 0
    assert "new signing key" in capsys.readouterr().out
    assert command("keys", "rotate", "--yes", "--json") == 0
    assert "done" in json.loads(capsys.readouterr().out)
    assert path.read_text().count("BEGIN PRIVATE KEY") == 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["ID", "--print"], "--print"),
        (["ID", "--yes"], "--yes"),
        (["", "--yes"], "The id is empty."),
        (["--overlap-hours", "1", "--yes"], "--overlap-hours"),
        (["--expires-days", "9999", "--yes"], "--expires-days"),
        (["--print", "--overlap-hours", "24"], "--overlap-hours"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_options_of_the_other_kind_of_key_rotate_nothing(
    command: Command,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    problem: str,
) -> None:
    """An option of `keys rotate` that does not apply, and an empty id, are usage errors."""
    path = tmp_path / "keys.pem"
    path.write_text(generate_signing_key("ES256"))
    monkeypatch.setenv("AUTH__SIGNING_KEY_FILE", str(path))
    assert command("keys", "create", "--user", "ana", "--name", "maps", "--json") == 0
    key_id = json.loads(capsys.readouterr().out)["id"]
    assert command("keys", "rotate", *(key_id if each == "ID" else each for each in arguments)) == 2
    assert problem in capsys.readouterr().err
    assert path.read_text().count("BEGIN PRIVATE KEY") == 1
    assert command("keys", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["previous_until"] is None


def test_a_key_s_name_is_printed_as_it_is(command: Command, capsys: Capture) -> None:
    """A name is not interpreted as markup, and one with control characters is rejected."""
    for name in ("[/x]", "[red]alert[/red]"):
        assert command("keys", "create", "--user", "ana", "--name", name) == 0
    assert command("keys", "create", "--user", "ana", "--name", "two\x1b[2Jlines") == 2
    assert "--name: must be printable." in capsys.readouterr().err
    assert command("keys", "list") == 0
    out = capsys.readouterr().out
    assert "[/x]" in out
    assert "[red]alert[/red]" in out


def test_classify_needs_a_credential(command: Command, capsys: Capture) -> None:
    """`classify` without a token or key is a usage error."""
    assert command("classify", "--url", "http://127.0.0.1:1", "a.png") == 2
    assert "--key" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["classify", "a.png"], ["label", "1", "forest"]], ids=["classify", "label"])
def test_a_client_takes_one_credential(
    command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """A token together with a key, which may come from the environment, is a usage error."""
    arguments = [*arguments, "--url", "http://127.0.0.1:1"]
    assert command(*arguments, "--token", "t", "--key", "k") == 2
    assert "Give either --token or --key." in capsys.readouterr().err
    monkeypatch.setenv("ATALAYA_KEY", "k")
    assert command(*arguments, "--token", "t") == 2
    assert "ATALAYA_KEY" in capsys.readouterr().err

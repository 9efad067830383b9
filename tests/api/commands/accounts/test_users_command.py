"""`atalaya users` and `atalaya token`: changes to users."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest

from api.cli import run
from api.services.auth import one_time_codes
from api.settings import Settings, load_settings
from auth.accounts.store import UserStore
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from storage.engine import open_engine
from tests.support.gateway import PASSWORD, create_database

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with a database that has the user `ana`; returns the status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/users.db")
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))
    monkeypatch.setenv("AUTH__DATA_KEY", new_data_key())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/users.db")

    def run_with_input(*arguments: str, stdin: str = PASSWORD) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = run(list(arguments))
        return status, *capsys.readouterr()

    assert run_with_input("users", "add", "ana", "--role", "client", "--password-stdin")[0] == 0
    return run_with_input


def request_token(command: Command, *options: str) -> int:
    return command("token", "--user", "ana", "--password-stdin", *options)[0]


def test_disabled_user_is_enabled(command: Command) -> None:
    """A disabled user cannot log in until the user is enabled again."""
    assert command("users", "disable", "ana")[0] == 0
    assert request_token(command) == 1
    status, printed, _ = command("users", "enable", "ana", "--json")
    document = json.loads(printed)
    assert (status, document["disabled_at"], document["created_at"][-1]) == (0, None, "Z")
    assert request_token(command) == 0


def test_role_is_set(command: Command) -> None:
    """`users role` prints the new role, which limits the scopes of tokens; an unknown role or user is an error."""
    assert command("users", "role", "ana", "--role", "auditor")[:2] == (0, "ana (auditor): role set.\n")
    assert request_token(command, "--scope", "audit:read") == 0
    assert request_token(command, "--scope", "predict") == 1
    assert command("users", "role", "ana", "--role", "king")[0] == 2
    assert command("users", "role", "nobody", "--role", "client")[0] == 1


def test_an_unrecorded_command_changes_nothing(command: Command) -> None:
    """A command fails and changes nothing while its audit entry cannot be written; afterwards it succeeds."""
    with closing(sqlite3.connect("users.db")) as database:
        database.execute("ALTER TABLE audit_events RENAME TO elsewhere")
        status, _, error = command("users", "role", "ana", "--role", "auditor")
        assert (status, "audit log" in error) == (1, True)
        assert command("keys", "create", "--user", "ana", "--name", "camera")[0] == 1
        assert command("clients", "add", "maps")[0] == 1
        database.execute("ALTER TABLE elsewhere RENAME TO audit_events")
    assert json.loads(command("users", "list", "--json")[1])[0]["role"] == "client"
    assert json.loads(command("keys", "list", "--json")[1]) == []
    assert command("clients", "add", "maps")[0] == 0
    assert command("users", "role", "ana", "--role", "auditor")[0] == 0


def test_one_time_codes_are_required_and_reset(command: Command) -> None:
    """A user with one-time codes needs one for `atalaya token`, until `totp-reset` removes them."""
    totp = asyncio.run(enrol(load_settings()))
    status, _, error = command("token", "--user", "ana", "--password-stdin")
    assert (status, "one-time code" in error) == (1, True)
    assert request_token(command, "--totp", "abcdef") == 1
    assert request_token(command, "--totp", totp.at(datetime.now(UTC) + timedelta(seconds=30))) == 0
    assert command("users", "totp-reset", "ana")[:2] == (0, "ana (client): one-time codes are off.\n")
    assert request_token(command) == 0


@pytest.mark.parametrize("arguments", [("disable", "ana"), ("role", "ana", "--role", "client")])
def test_last_administrator_needs_force(command: Command, arguments: tuple[str, ...]) -> None:
    """A command that would remove the last enabled administrator fails and suggests `--force`, which allows it."""
    assert command("users", "role", "ana", "--role", "admin")[0] == 0
    status, printed, error = command("users", *arguments)
    assert (status, printed) == (1, "")
    assert "Make another user an admin first." in error
    assert "--force" in error
    assert request_token(command) == 0
    assert command("users", *arguments, "--force")[0] == 0
    assert command("users", "enable", "ana")[0] == 0
    assert command("users", "role", "ana", "--role", "admin")[0] == 0


@pytest.mark.parametrize("name", ["disable", "role"])
def test_force_is_documented(command: Command, name: str) -> None:
    """The help of both commands explains `--force`."""
    status, printed, _ = command("users", name, "--help")
    assert status == 0
    assert "--force" in printed
    assert "no enabled administrator" in " ".join(printed.split())


def test_unknown_and_impossible_users_are_errors(command: Command) -> None:
    """A command on an unknown user names the user, and one on an invalid user name states the rule for names."""
    for arguments in (("disable",), ("enable",), ("totp-reset",), ("passwd", "--password-stdin")):
        status, _, error = command("users", arguments[0], "nobody", *arguments[1:])
        assert (status, "There is no user nobody." in error) == (1, True)
        status, _, error = command("users", arguments[0], "No Body", *arguments[1:])
        assert (status, "a-z 0-9" in error) == (1, True)


def test_password_is_set(command: Command) -> None:
    """`passwd` replaces the password; the command leaves no hashing thread behind."""
    assert command("users", "passwd", "ana", "--password-stdin", stdin="walnut ferry quiet lamp")[0] == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("password")]
    assert request_token(command) == 1
    assert command("token", "--user", "ana", "--password-stdin", stdin="walnut ferry quiet lamp")[0] == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("password")]


async def enrol(settings: Settings) -> pyotp.TOTP:
    engine = open_engine(settings.database_url.get_secret_value())
    codes = one_time_codes(engine, settings)
    ana = (await UserStore(engine).list())[0]
    totp = pyotp.TOTP((await codes.begin(ana)).secret)
    await codes.confirm(ana, totp.now())
    await engine.dispose()
    return totp


def test_a_wrong_store_is_found_before_a_change(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """`users delete` and `users images` fail and change nothing when the image store cannot be opened."""
    monkeypatch.setenv("IMAGES__URL", "file:///images")
    for arguments in (("delete", "ana", "--yes"), ("images", "ana", "--keep")):
        status, _, err = command("users", *arguments)
        assert (status, "IMAGES__KEY is not set" in err) == (1, True)
    assert not json.loads(command("users", "list", "--json")[1])[0]["keep_images"]


def test_a_store_that_fails_after_the_deletion(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the images cannot be erased, whatever the reason, `users delete` says how to erase them later."""
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    monkeypatch.setenv("IMAGES__URL", "s3://images?region=us-east-1")
    monkeypatch.setenv("IMAGES__KEY", new_data_key())
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/absent")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway")
    user_id = json.loads(command("users", "list", "--json")[1])[0]["id"]
    status, _, err = command("users", "delete", "ana", "--yes")
    assert status == 1
    assert "the image store cannot be used: FileNotFoundError." in err
    assert err.endswith(f"Then run `atalaya users delete {user_id}` to erase the rest.\n")


def test_a_withdrawal_without_a_store(command: Command) -> None:
    """Without IMAGES__URL, `users images --no-keep` says that it erased none: another gateway may have a store."""
    status, printed, _ = command("users", "images", "ana", "--no-keep")
    expected = "ana: images are no longer kept; erased no images (IMAGES__URL is not set).\n"
    assert (status, printed) == (0, expected)

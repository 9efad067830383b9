"""`atalaya users` and `atalaya token`, for users who change."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest

from api.cli import run
from api.lifespan import one_time_codes
from api.settings import Settings, load_settings
from auth.accounts.store import UserStore
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from storage.engine import open_engine

PASSWORD = "correct horse battery"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in an empty folder; returns its status and what it printed. The user `ana` exists."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))
    monkeypatch.setenv("AUTH__DATA_KEY", new_data_key())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/users.db")

    def run_with_input(*arguments: str, stdin: str = PASSWORD) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = run(list(arguments))
        return status, *capsys.readouterr()

    assert run_with_input("users", "add", "ana", "--role", "client", "--password-stdin")[0] == 0
    return run_with_input


def _token(command: Command, *more: str) -> int:
    return command("token", "--user", "ana", "--password-stdin", *more)[0]


def test_a_disabled_user_is_enabled(command: Command) -> None:
    """Who was disabled can log in again once enabled."""
    assert command("users", "disable", "ana")[0] == 0
    assert _token(command) == 1
    status, printed, _ = command("users", "enable", "ana", "--json")
    assert (status, json.loads(printed)["disabled_at"]) == (0, None)
    assert _token(command) == 0


def test_a_role_is_set(command: Command) -> None:
    """The new role is printed and decides what a token may have."""
    assert command("users", "role", "ana", "--role", "auditor")[:2] == (0, "ana (auditor): role set.\n")
    assert _token(command, "--scope", "audit:read") == 0
    assert _token(command, "--scope", "predict") == 1
    assert command("users", "role", "ana", "--role", "king")[0] == 2
    assert command("users", "role", "nobody", "--role", "client")[0] == 1


def test_one_time_codes_are_asked_for_and_reset(command: Command) -> None:
    """A user with codes needs one here too; `totp-reset` lets the user in without."""
    totp = asyncio.run(_enrol(load_settings()))
    status, _, error = command("token", "--user", "ana", "--password-stdin")
    assert (status, "one-time code" in error) == (1, True)
    assert _token(command, "--totp", "abcdef") == 1
    assert _token(command, "--totp", totp.at(datetime.now(UTC) + timedelta(seconds=30))) == 0
    assert command("users", "totp-reset", "ana")[:2] == (0, "ana (client): one-time codes removed.\n")
    assert _token(command) == 0


async def _enrol(settings: Settings) -> pyotp.TOTP:
    engine = open_engine(settings.database_url.get_secret_value())
    codes = one_time_codes(engine, settings)
    ana = (await UserStore(engine).list())[0]
    totp = pyotp.TOTP((await codes.begin(ana)).secret)
    await codes.confirm(ana, totp.now())
    await engine.dispose()
    return totp

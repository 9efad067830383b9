"""`atalaya secrets check` and `atalaya keys rotate --print`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.cli import run
from api.commands.database import run_with_accounts
from api.settings import load_settings
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from auth.tokens.keyring import read_bundle
from monitoring.chains.signing import new_private_key
from tests.support.ports import free_port


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("SECRETS__URL", f"file://{folder}")
    return folder


def write_keys(folder: Path) -> None:
    (folder / "AUTH__SIGNING_KEY").write_text(generate_signing_key("ES256"))
    (folder / "AUTH__DATA_KEY").write_text(new_data_key())
    (folder / "LEDGER__SIGNING_KEY").write_text(new_private_key())


def test_every_problem_is_named_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All secrets that are missing, malformed or weak are named, and none is shown."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    (folder / "LEDGER__SIGNING_KEY").write_text("sesame")
    (folder / "DATABASE_URL").write_text("postgresql://ana:sesame@db/land")
    (folder / "SENTRY_DSN").write_text("sesame")
    assert run(["secrets", "check"]) == 1
    output = capsys.readouterr()
    assert (output.out, "sesame" in output.err) == ("", False)
    named = {line.removeprefix("error: ").split()[0].rstrip(":") for line in output.err.splitlines()}
    assert named == {"AUTH__SIGNING_KEY", "AUTH__DATA_KEY", "LEDGER__SIGNING_KEY", "DATABASE_URL", "SENTRY_DSN"}


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one document with the problems, and the exit status says whether there are any."""
    assert run(["secrets", "check", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], len(document["problems"])) == (False, 3)
    write_keys(folder)
    assert run(["secrets", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_an_unavailable_provider(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A provider that cannot be read is the only problem that is reported."""
    folder.rmdir()
    assert run(["secrets", "check"]) == 1
    assert capsys.readouterr().err.startswith("error: SECRETS__URL: ")


def test_a_health_check_needs_no_secrets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A health check contacts the gateway even without the provider, or a working gateway would be restarted."""
    monkeypatch.setenv("PORT", str(free_port()))
    folder.rmdir()
    assert run(["healthcheck"]) == 1
    assert "does not respond" in capsys.readouterr().err


def test_rotated_keys_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`keys rotate --print` prints the stored signing keys with a new one in front, and changes nothing."""
    write_keys(folder)
    old = (folder / "AUTH__SIGNING_KEY").read_text()

    async def nothing(_: object) -> None:
        return None

    run_with_accounts(load_settings(), nothing, create=True)
    assert run(["keys", "rotate", "--yes"]) == 1
    assert "keys rotate --print" in capsys.readouterr().err
    assert run(["keys", "rotate", "--print"]) == 0
    _, kept = read_bundle("ES256", capsys.readouterr().out)
    assert kept.text == old.strip()
    assert (folder / "AUTH__SIGNING_KEY").read_text() == old

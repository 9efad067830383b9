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
    """`keys rotate --print` prints the stored signing keys with a new one in front, and changes nothing.

    With --json, the keys are the text of a member.
    """
    write_keys(folder)
    old = (folder / "AUTH__SIGNING_KEY").read_text()

    async def nothing(_: object) -> None:
        return None

    run_with_accounts(load_settings(), nothing, create=True)
    for options in (["--yes"], []):  # without --yes, the command says so before it asks
        assert run(["keys", "rotate", *options]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: AUTH__SIGNING_KEY is not read from .env. `atalaya keys rotate --print` prints")
    assert run(["keys", "rotate", "--print"]) == 0
    _, kept = read_bundle("ES256", capsys.readouterr().out)
    assert kept.text == old.strip()
    assert run(["keys", "rotate", "--print", "--json"]) == 0
    _, kept = read_bundle("ES256", json.loads(capsys.readouterr().out)["signing_keys"])
    assert kept.text == old.strip()
    assert (folder / "AUTH__SIGNING_KEY").read_text() == old


def test_a_missing_key_is_not_rotated(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`keys rotate` without a signing key says how to generate one, with and without --yes and --print."""
    env_file.write_text("PORT=8001\n")
    for options in ([], ["--yes"], ["--print"]):
        assert run(["keys", "rotate", *options]) == 1
        assert capsys.readouterr().err.startswith("error: AUTH__SIGNING_KEY is not set. Run `atalaya secrets init`")


def test_a_key_that_a_store_lacks_is_not_sought_in_the_environment(
    env_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With SECRETS__URL, the message does not suggest to generate another key in .env."""
    (tmp_path / "store").mkdir()
    env_file.write_text(f"SECRETS__URL=file://{tmp_path}/store\n")
    assert run(["keys", "rotate"]) == 1
    assert capsys.readouterr().err.startswith("error: AUTH__SIGNING_KEY is not where SECRETS__URL points, or is empty")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """The .env of a gateway that has a database and no other source of secrets."""

    async def nothing(_: object) -> None:
        return None

    run_with_accounts(load_settings(), nothing, create=True)
    return tmp_path / ".env"


def write_pem(quotation_mark: str, name: str = "AUTH__SIGNING_KEY") -> str:
    """Return a statement of .env that sets the signing key in several lines."""
    return f"{name}={quotation_mark}{generate_signing_key('ES256')}{quotation_mark}  # the key\n"


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("PORT=8001\n\n", "export AUTH__SIGNING_KEY"),
        ("  ", "AUTH__SIGNING_KEY"),
        ("", "auth__signing_key"),
        ("AUTH__SIGNING_KEY=old\n\n", "AUTH__SIGNING_KEY"),
    ],
)
@pytest.mark.parametrize("mark", ["'", '"'])
def test_the_whole_statement_of_env_is_replaced(env_file: Path, before: str, name: str, mark: str) -> None:
    """`keys rotate` finds the key as dotenv does: after `export`, in several lines, and once among repeated names."""
    env_file.write_text(f"# keys\n{before}{write_pem(mark, name)}WEB_CONCURRENCY=2\n")
    old = load_settings().signing_keys()
    assert run(["keys", "rotate", "--yes"]) == 0
    _, kept = read_bundle("ES256", load_settings().signing_keys())
    assert kept.text == old
    text = env_file.read_text()
    assert text.count("PRIVATE KEY-----") == 4
    assert text.startswith(f"# keys\n{before}".partition("AUTH__SIGNING_KEY=")[0])
    assert text.endswith("\nWEB_CONCURRENCY=2\n")
    assert ("export " in text) == name.startswith("export ")


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("source", ["environment", "folder"])
def test_a_key_that_another_source_overrides_is_not_rotated(
    env_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    source: str,
    same: bool,
) -> None:
    """`keys rotate` does not write to .env if the key in use comes from elsewhere, even if both values are equal."""
    env_file.write_text(write_pem("'"))
    before = env_file.read_text()
    key = load_settings().signing_keys() if same else generate_signing_key("ES256")
    if source == "environment":
        monkeypatch.setenv("AUTH__SIGNING_KEY", key)
    else:
        (request.getfixturevalue("folder") / "AUTH__SIGNING_KEY").write_text(key)
    assert run(["keys", "rotate", "--yes"]) == 1
    assert "keys rotate --print" in capsys.readouterr().err
    assert env_file.read_text() == before
    assert run(["audit", "--event", "signing_key", "--json"]) == 0
    assert json.loads(capsys.readouterr().out or "[]") == []


def test_a_secret_with_special_characters_is_rotated(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret for HS256 with quotation marks and backslashes stays the same in .env."""
    monkeypatch.setenv("AUTH__SIGNING_ALGORITHM", "HS256")
    secret = r'a "quoted" part, a \backslash and more than enough characters'
    env_file.write_text(f"AUTH__SIGNING_KEY={secret}\n")
    assert run(["keys", "rotate", "--yes"]) == 0
    _, kept = read_bundle("HS256", load_settings().signing_keys())
    assert kept.text == secret


def test_init_does_not_change_a_file_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`secrets init` reports a .env in Latin-1 like `secrets check`."""
    file = tmp_path / ".env"
    file.write_bytes("# contraseña\n".encode("latin-1"))
    messages = []
    for command in ("check", "init"):
        assert run(["secrets", command]) == 1
        messages.append(capsys.readouterr().err)
    assert (
        messages == [f"error: {file} is not UTF-8 text. Save it with the encoding UTF-8, not UTF-16 or Latin-1.\n"] * 2
    )
    assert file.read_bytes() == "# contraseña\n".encode("latin-1")


def test_init_does_not_write_keys_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`secrets init` changes nothing if a quotation mark that is never closed would swallow a new key."""
    file = tmp_path / ".env"
    file.write_text('SENTRY_DSN="https://\n')
    assert run(["secrets", "init"]) == 1
    assert "Check its quotation marks." in capsys.readouterr().err
    assert file.read_text() == 'SENTRY_DSN="https://\n'

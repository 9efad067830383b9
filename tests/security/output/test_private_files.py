"""Threat T47: secrets and personal data in files and logs that others can read, on a running gateway."""

from __future__ import annotations

import io
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pexpect
import pytest

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway, running_gateway
from tests.support.paths import FOREST
from tests.support.polling import PATIENCE_S, wait_until

EMAIL = "ada@example.org"


def read_mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def list_open_to_others(folder: Path) -> list[str]:
    """Return the files below the folder that other users may access, except the log, which the test writes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "gateway.log")
    return [path.name for path in files if path.stat().st_mode & 0o077]


@pytest.fixture(scope="module")
def debugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that logs at debug, with a user named by e-mail; everybody could read its files before the start."""
    folder = tmp_path_factory.mktemp("private")
    settings = {"LOG_LEVEL": "debug", "MODEL__URL": "stub://", "LEDGER__SPOOL_FOLDER": str(folder / "spool")}
    with running_gateway(folder, **settings) as gateway:
        gateway.stop()
        gateway.run("users", "add", EMAIL, "--role", "client", "--password-stdin", stdin=PASSWORD)
        (folder / ".env").write_text("AUTH__AUDIENCE=atalaya\n")
        for name in ("gateway.db", ".env"):
            (folder / name).chmod(0o644)
        (folder / "spool").chmod(0o755)
        gateway.start()
        yield gateway


def test_new_and_existing_files_are_private(debugged: Gateway) -> None:
    """T47: the database, with its -wal and -shm, the spool and .env are private, even if they were not before."""
    assert debugged.client().post("/v1/predictions", files={"file": FOREST.read_bytes()}).status_code == 200
    names = {path.name for path in debugged.folder.rglob("*")}
    assert {"gateway.db", "gateway.db-wal", "gateway.db-shm", ".env", "spool"} <= names
    assert list_open_to_others(debugged.folder) == []
    assert read_mode(debugged.folder / "spool") == "0o700"


@pytest.mark.parametrize("command", [["audit", "--export"], ["ledger", "export"]], ids=["audit", "ledger"])
def test_an_export_replaces_a_readable_file(debugged: Gateway, tmp_path: Path, command: list[str]) -> None:
    """T47: an export that replaces a file that others can read is private; a failed one leaves the file as it was."""
    path = tmp_path / "export.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as opened_before:
        exported = debugged.run(*command, str(path))
        assert exported.returncode == 0, exported.stderr
        assert (read_mode(path), opened_before.read()) == ("0o600", "old")
    before = path.read_bytes()
    failed = debugged.with_settings(DATABASE_URL=f"sqlite:///{tmp_path}").run(*command, str(path))
    assert (failed.returncode, path.read_bytes()) == (1, before)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def use_every_credential(gateway: Gateway) -> list[str]:
    """Use every kind of credential as the user with the e-mail, and return every secret involved."""
    login = gateway.log_in(EMAIL).json()
    gateway.log_in(EMAIL, "wrong horse battery")
    refresh = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
    refreshed = gateway.post("/auth/token", data=refresh).json()
    bearer = {"Authorization": f"Bearer {refreshed['access_token']}"}
    created = gateway.post("/v1/keys", headers=bearer, json={"name": "camera"}).json()
    rotated = gateway.post(f"/v1/keys/{created['id']}/rotate", headers=bearer).json()
    gateway.post("/v1/predictions", headers={"X-API-Key": rotated["key"]}, files={"file": FOREST.read_bytes()})
    tokens = [part[key] for part in (login, refreshed) for key in ("access_token", "refresh_token")]
    return [PASSWORD, "wrong horse", EMAIL, *tokens, *(key["key"][-43:] for key in (created, rotated))]


def test_the_debug_log_holds_no_secret(debugged: Gateway) -> None:
    """T47: at debug, no password, hash, token, key or e-mail is logged, and no SQL statement."""
    secrets = use_every_credential(debugged)
    with httpx.Client(base_url=debugged.base_url, timeout=TIMEOUT_S) as client:
        marker = client.get("/v1/me").headers["x-request-id"]
    wait_until(lambda: marker in debugged.log())
    log = debugged.log()
    assert [secret for secret in secrets if secret in log] == []
    assert "$argon2" not in log
    assert [digest for digest in read_digests(debugged.database_path) if digest in log] == []
    assert "INSERT INTO" not in log
    assert "SELECT " not in log


def read_digests(path: Path) -> list[str]:
    """Return the digests of all keys and refresh tokens."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT secret_digest FROM api_keys UNION SELECT digest FROM refresh_tokens").fetchall()
    return [digest for (digest,) in rows]


@pytest.fixture
def empty(debugged: Gateway, tmp_path: Path) -> Gateway:
    """A gateway with an empty database, which has not been started."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db", "LEDGER__SPOOL_FOLDER": "spool"}
    return debugged.replica(tmp_path, ATALAYA_HOME=str(tmp_path), **settings)


def log_in_as_admin(gateway: Gateway, password: str) -> int:
    return gateway.log_in("admin", password).status_code


def test_the_first_password_is_not_logged(empty: Gateway) -> None:
    """T47: without a terminal, the first administrator's password is written to a private file, and only once."""
    empty.start()
    path = empty.folder / "var" / "admin-password"
    assert read_mode(path) == "0o600"
    password = path.read_text().strip()
    log = empty.complete_log()
    assert (password in log, "var/admin-password" in log) == (False, True)
    assert log_in_as_admin(empty, password) == 200
    path.unlink()
    assert empty.stop() == 0
    empty.start()
    assert not path.exists()
    assert "First start" not in empty.complete_log()
    empty.stop()


def start_in_terminal(gateway: Gateway) -> pexpect.spawn[str]:
    environment: Any = gateway.environment  # pexpect's type is that of os.environ
    program, *arguments = gateway.command
    return pexpect.spawn(
        str(program), arguments, cwd=gateway.folder, env=environment, timeout=PATIENCE_S, encoding="utf-8"
    )


def test_a_terminal_shows_the_first_password(empty: Gateway) -> None:
    """T47: in a terminal the password is printed once and written nowhere."""
    terminal = start_in_terminal(empty)
    try:
        terminal.expect(r"has the password \S+ ")
        password = str(terminal.after).split()[-1]
        wait_until(lambda: is_ready(empty))
        assert log_in_as_admin(empty, password) == 200
        assert not (empty.folder / "var" / "admin-password").exists()
    finally:
        terminal.terminate(force=True)


def test_production_shows_no_password_on_a_terminal(empty: Gateway) -> None:
    """T47: in production the password is not shown on a terminal, because that of a container is logged."""
    terminal = start_in_terminal(
        empty.with_settings(ENVIRONMENT="production", AUTH__ISSUER=f"http://localhost:{empty.port}")
    )
    terminal.logfile_read = output = io.StringIO()
    try:
        terminal.expect("var/admin-password")
        assert (empty.folder / "var" / "admin-password").read_text().strip() not in output.getvalue()
    finally:
        terminal.terminate(force=True)


def is_ready(gateway: Gateway) -> bool:
    try:
        return gateway.get("/readyz").is_success
    except httpx.TransportError:
        return False


def test_a_password_that_cannot_be_written_can_be_set(empty: Gateway) -> None:
    """T47: if the file cannot be written, the log says how to set a password, and the gateway serves."""
    (empty.folder / "var").write_text("a file where the folder should be")
    empty.start()
    assert "atalaya users passwd admin" in empty.complete_log()
    changed = empty.run("users", "passwd", "admin", "--password-stdin", stdin=PASSWORD)
    assert changed.returncode == 0, changed.stderr
    assert log_in_as_admin(empty, PASSWORD) == 200
    empty.stop()


def test_generated_secrets_are_private(empty: Gateway) -> None:
    """T47: `secrets init` makes .env private, even if it already has all secrets."""
    path = empty.folder / ".env"
    for _ in range(2):
        assert empty.run("secrets", "init").returncode == 0
        assert read_mode(path) == "0o600"
        path.chmod(0o644)

"""The documented commands for backup and restore, run exactly as documented, while a gateway is under load."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from storage.engine import open_blocking_engine
from tests.contract.documents.markdown import read_blocks
from tests.support.callers import running_threads
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import BIN, FOREST, ROOT
from tests.support.polling import wait_until
from tests.support.postgres import execute_when_unused

pytestmark = pytest.mark.long
PAGE = ROOT / "docs" / "deploy" / "backup.md"
# A replacement for Docker that runs the commands of both services here, and stops the gateway by its process id.
DOCKER = """#!/bin/sh
shift
case "$1" in
  exec) shift 3; exec "$@" ;;
  run) shift 4; exec "$@" ;;
  stop) kill -TERM "$GATEWAY_PID"; while kill -0 "$GATEWAY_PID" 2>/dev/null; do sleep 0.1; done ;;
  start) ;;
  *) echo "unknown: $*" >&2; exit 64 ;;
esac
"""


def read_commands(section: str) -> str:
    """The last code block of a section; an earlier one may open the shell for it."""
    *_, (language, text) = read_blocks(PAGE, section)
    assert language == "sh"
    return text


def run_commands(gateway: Gateway, section: str, **variables: str) -> str:
    """Run the commands of a section in the gateway's folder; BACKUP, if given, replaces the documented path."""
    backup = variables.get("BACKUP")
    commands = read_commands(section)
    if backup:
        commands = commands.replace("BACKUP=backups/20261126T023000Z.backup", f"BACKUP={shlex.quote(backup)}")
    docker = gateway.folder / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    path = os.pathsep.join((str(docker.parent), str(BIN), os.environ["PATH"]))
    environment = {**gateway.environment, **variables, "PATH": path, "GATEWAY_PID": str(gateway.pid)}
    reaper = threading.Thread(target=gateway.process.wait, daemon=True)
    reaper.start()  # without a wait, an ended process stays visible to `kill -0`
    done = subprocess.run(
        ["sh", "-c", commands], cwd=gateway.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def load(gateway: Gateway) -> Iterator[None]:
    """Send predictions and requests that are rejected, without a pause, before, during and after the block."""
    statuses: set[int] = set()

    def send(ended: threading.Event) -> None:
        client = gateway.client()
        while not ended.is_set():
            statuses.add(client.post("/v1/predictions", content=FOREST.read_bytes()).status_code)
            statuses.add(client.post("/v1/predictions", content=b"text").status_code)

    with running_threads(send, 2):
        # Only then does the backup have predictions, however long the logins take.
        wait_until(lambda: {200, 415} <= statuses and gateway.metric("atalaya_ledger_spooled_entries") == 0)
        yield
    assert statuses == {200, 415}


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[dict[str, str]]:
    """An empty database and a user named as in the Compose file; yields the variables that name the server."""
    host, _, port = postgres_server.rpartition("@")[2].partition(":")
    names = ("atalaya", "damaged")
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE ROLE atalaya SUPERUSER LOGIN")
        connection.execute("CREATE DATABASE atalaya OWNER atalaya")
        yield {"PGHOST": host, "PGPORT": port, "DATABASE_URL": f"postgresql://atalaya@{host}:{port}/atalaya"}
        for name in names:
            execute_when_unused(connection, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute("DROP ROLE atalaya")


def read_entries(printed: str) -> tuple[int, int]:
    """How many entries of the audit log and of the ledger `restore` or both `verify` commands have verified."""
    audit, ledger = (int(count) for count in re.findall(r"(\d+) entries.*?, unchanged\.", printed))
    assert min(audit, ledger) > 0, printed
    return audit, ledger


def find_backup(gateway: Gateway) -> str:
    """The only backup, which is encrypted and private."""
    (backup,) = (gateway.folder / "backups").iterdir()
    assert backup.stat().st_mode & 0o077 == 0
    assert b"null" not in backup.read_bytes()[:60]
    return str(backup.relative_to(gateway.folder))


def check_charges(gateway: Gateway) -> None:
    """Check that each restored prediction has its charge, because both are written in one transaction."""
    engine = open_blocking_engine(gateway.environment["DATABASE_URL"])
    with engine.connect() as connection:
        charged = connection.execute(text("SELECT sum(requests) FROM usage WHERE owner LIKE 'user:%'")).scalar_one()
        made = connection.execute(text("SELECT count(*) FROM ledger_payloads WHERE status = 200")).scalar_one()
    engine.dispose()
    assert charged == made > 0


def go_on(gateway: Gateway, recorded: int) -> None:
    """Start the gateway on the restored database, and check that it records a prediction and the records verify."""
    gateway.start()
    assert gateway.client().post("/v1/predictions", content=FOREST.read_bytes()).status_code == 200
    assert gateway.stop() == 0
    printed = "".join(gateway.run(record, "verify").stdout for record in ("audit", "ledger"))
    assert read_entries(printed)[1] == recorded + 1


def back_up_and_restore(gateway: Gateway, *sections: str) -> None:
    """Run the commands of two sections, the first under load, and use the restored database.

    The passphrase file has no line end, as some editors and programs write it.
    """
    (gateway.folder / "backup-passphrase").write_text("correct horse battery")
    gateway.start()
    back_up, restore = sections
    with load(gateway):
        run_commands(gateway, back_up)
    backup, before = find_backup(gateway), set(gateway.folder.iterdir())
    printed = run_commands(gateway, "## Test a backup", BACKUP=backup, TMPDIR=str(gateway.folder))
    assert read_entries(printed)
    assert set(gateway.folder.iterdir()) == before
    gateway.stop()
    printed = run_commands(gateway, restore, BACKUP=backup)
    check_charges(gateway)
    go_on(gateway, read_entries(printed)[1])


def test_sqlite_is_backed_up_and_restored(tmp_path: Path) -> None:
    """The documented commands copy an SQLite database under load, and restore a copy that verifies and can be used."""
    gateway = make_gateway(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/var/atalaya.db", MODEL__URL="stub://")
    back_up_and_restore(gateway, "### Back up on the host", "### Restore SQLite")


def read_unit_command() -> str:
    """The shell command of the systemd unit, as systemd passes it to `sh -c`."""
    unit = (ROOT / "deploy" / "systemd" / "atalaya-backup.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    shell, option, command = shlex.split(line)
    assert (shell, option) == ("/bin/sh", "-c")
    return command.replace("$$", "$").replace("%%", "%").replace("/opt/atalaya/.venv/bin", str(BIN))


def test_the_systemd_unit_makes_a_backup_that_can_be_restored(tmp_path: Path) -> None:
    """The timer's command writes an encrypted backup named after the time; a failed test of a backup leaves no copy."""
    gateway = make_gateway(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/var/atalaya.db", MODEL__URL="stub://")
    (gateway.folder / "backup-passphrase").write_text("correct horse battery\n")
    gateway.start()
    (gateway.folder / "backups").mkdir()
    environment = gateway.environment
    subprocess.run(["sh", "-c", f"umask 077; {read_unit_command()}"], cwd=gateway.folder, env=environment, check=True)
    backup = find_backup(gateway)
    assert re.fullmatch(r"backups/\d{8}T\d{6}Z\.backup", backup)
    assert "unchanged" in run_commands(gateway, "## Test a backup", BACKUP=backup, TMPDIR=str(tmp_path))
    before = set(tmp_path.iterdir())
    (gateway.folder / backup).write_bytes((gateway.folder / backup).read_bytes()[:-1])
    with pytest.raises(AssertionError, match="incomplete"):
        run_commands(gateway, "## Test a backup", BACKUP=backup, TMPDIR=str(tmp_path))
    assert set(tmp_path.iterdir()) == before
    assert gateway.stop() == 0


def test_postgresql_is_backed_up_and_restored(tmp_path: Path, postgres: dict[str, str]) -> None:
    """The documented commands copy PostgreSQL under load, and restore a copy that verifies into an empty database."""
    gateway = make_gateway(tmp_path, **postgres, MODEL__URL="stub://")
    back_up_and_restore(gateway, "### Back up with Compose", "### Restore PostgreSQL with Compose")

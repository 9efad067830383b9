"""The unit files for systemd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from api.server.timeouts import SHUTDOWN_LIMIT_S
from api.settings.gateway import Settings
from tests.support.paths import ATALAYA, ROOT

UNIT = ROOT / "deploy" / "systemd" / "atalaya.service"
MOST_EXPOSED = 2.0  # of 10, as `systemd-analyze security` rates it


def read_unit() -> dict[str, list[str]]:
    """Every option of the unit with its values."""
    options: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            options.setdefault(name, []).append(value)
    return options


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """If systemd-analyze is installed, it accepts the unit and rates its exposure as low."""
    assert UNIT.read_text().count("/opt/atalaya/.venv/bin/atalaya serve") == 1
    program = shutil.which("systemd-analyze")
    if program is None:
        return  # the other tests check the essentials
    unit = tmp_path / "atalaya.service"
    unit.write_text(UNIT.read_text().replace("/opt/atalaya/.venv/bin/atalaya", str(ATALAYA)))
    for arguments in (["verify"], ["security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}"]):
        done = subprocess.run([program, "--no-pager", *arguments, unit], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "unknown" not in done.stderr.lower(), done.stderr


def test_service_is_confined() -> None:
    """The service runs as its own user, writes only to its state folder, and gets no privileges."""
    unit = read_unit()
    assert unit["User"] == ["atalaya"]
    assert (unit["ProtectSystem"], unit["StateDirectory"], unit["StateDirectoryMode"]) == (
        ["strict"],
        ["atalaya"],
        ["0700"],
    )
    assert "ReadWritePaths" not in unit
    assert (unit["NoNewPrivileges"], unit["CapabilityBoundingSet"]) == (["yes"], [""])


def test_service_is_stopped_in_order_and_restarted() -> None:
    """systemd gives the gateway enough time for a graceful shutdown, and restarts it after a failure."""
    unit = read_unit()
    drain_s = Settings.model_fields["drain_seconds"].default
    assert int(unit["TimeoutStopSec"][0]) > drain_s + SHUTDOWN_LIMIT_S
    assert (unit["KillMode"], unit["Restart"]) == (["mixed"], ["on-failure"])
    assert "ExecReload" not in unit  # SIGHUP stops a single-process gateway


@pytest.mark.parametrize(("name", "command"), [("upkeep", "upkeep --yes"), ("backup", "backup ")])
def test_tasks_run_daily_as_the_service_s_user(name: str, command: str, tmp_path: Path) -> None:
    """Each task runs as the gateway's user, its timer makes up for a missed run, and systemd accepts both units."""
    folder = UNIT.parent
    service = (folder / f"atalaya-{name}.service").read_text()
    assert f"/opt/atalaya/.venv/bin/atalaya {command}" in service
    assert "User=atalaya" in service
    assert "UMask=0077" in service
    assert "Persistent=true" in (folder / f"atalaya-{name}.timer").read_text()
    program = shutil.which("systemd-analyze")
    if program is None:
        return
    unit = tmp_path / f"atalaya-{name}.service"
    unit.write_text(service.replace("/opt/atalaya/.venv/bin/atalaya", str(ATALAYA)))
    shutil.copy(folder / f"atalaya-{name}.timer", tmp_path)
    for path in (unit, unit.with_suffix(".timer")):
        done = subprocess.run([program, "--no-pager", "verify", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

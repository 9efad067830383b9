"""The unit files for systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.server.timeouts import SHUTDOWN_LIMIT_S
from api.settings.gateway import Settings
from tests.support.paths import ATALAYA, ROOT
from tests.support.requirements import find_program

UNITS = ROOT / "deploy" / "systemd"
COMMANDS = {"atalaya": "serve", "atalaya-upkeep": "upkeep --yes", "atalaya-backup": "backup "}
TASKS = ["atalaya-upkeep", "atalaya-backup"]
MAX_EXPOSURE = 2.0  # of 10, as `systemd-analyze security` rates it


def read_unit(name: str) -> dict[str, list[str]]:
    """Every option of a unit with its values."""
    options: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        option, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            options.setdefault(option, []).append(value)
    return options


def copy_service(name: str, folder: Path) -> Path:
    """Write a service to a folder, with the path of this machine's `atalaya`."""
    unit = folder / f"{name}.service"
    unit.write_text((UNITS / unit.name).read_text().replace("/opt/atalaya/.venv/bin/atalaya", str(ATALAYA)))
    return unit


def analyze(unit: Path, *arguments: str) -> None:
    """Run systemd-analyze on a unit; it must succeed and report no line of the unit."""
    command = [find_program("systemd-analyze", packages="systemd"), "--no-pager", *arguments, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{unit}:" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_systemd_accepts_each_service(name: str, tmp_path: Path) -> None:
    """systemd accepts every option of each service."""
    analyze(copy_service(name, tmp_path), "verify")


@pytest.mark.parametrize("name", TASKS)
def test_systemd_accepts_each_timer(name: str, tmp_path: Path) -> None:
    """systemd accepts every option of each timer, and finds the service that the timer starts."""
    copy_service(name, tmp_path)
    timer = tmp_path / f"{name}.timer"
    shutil.copy(UNITS / timer.name, timer)
    analyze(timer, "verify")


def test_systemd_rates_the_gateway_s_exposure_as_low(tmp_path: Path) -> None:
    """systemd rates the exposure of the gateway's service as low."""
    analyze(copy_service("atalaya", tmp_path), "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}")


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_each_service_runs_the_installed_program_as_its_own_user(name: str, command: str) -> None:
    """Each service runs the program in /opt/atalaya as the user `atalaya`, whose files only this user can read."""
    unit = read_unit(f"{name}.service")
    assert len(unit["ExecStart"]) == 1
    assert f"/opt/atalaya/.venv/bin/atalaya {command}" in unit["ExecStart"][0]
    assert (unit["User"], unit["UMask"]) == (["atalaya"], ["0077"])


def test_service_is_confined() -> None:
    """The service writes only to its state folder, and gets no privileges."""
    unit = read_unit("atalaya.service")
    assert (unit["ProtectSystem"], unit["StateDirectory"], unit["StateDirectoryMode"]) == (
        ["strict"],
        ["atalaya"],
        ["0700"],
    )
    assert "ReadWritePaths" not in unit
    assert (unit["NoNewPrivileges"], unit["CapabilityBoundingSet"]) == (["yes"], [""])


def test_service_is_stopped_in_order_and_restarted() -> None:
    """systemd gives the gateway enough time for a graceful shutdown, and restarts it after a failure."""
    unit = read_unit("atalaya.service")
    drain_s = Settings.model_fields["drain_seconds"].default
    assert int(unit["TimeoutStopSec"][0]) > drain_s + SHUTDOWN_LIMIT_S
    assert (unit["KillMode"], unit["Restart"]) == (["mixed"], ["on-failure"])
    assert "ExecReload" not in unit  # SIGHUP stops a single-process gateway


@pytest.mark.parametrize("name", TASKS)
def test_tasks_run_daily(name: str) -> None:
    """Each timer starts its task once a day, and makes up for a missed run."""
    timer = read_unit(f"{name}.timer")
    (calendar,) = timer["OnCalendar"]
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d", calendar)
    assert timer["Persistent"] == ["true"]

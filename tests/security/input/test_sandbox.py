"""T52: code in the sandbox of an import can access only its own folder, and is ended at each of its limits."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.errors import ImportFailed, ImportLimitExceeded
from model.importing.sandbox import Limits
from model.importing.sandbox.run import run_confined
from tests.support.paths import ROOT

PAYLOAD = ROOT / "tests" / "model" / "importing" / "payload.py"
SMALL = Limits(memory=1 << 30, cpu_seconds=10, wall_seconds=60, file_bytes=1 << 24, folder_bytes=1 << 25, open_files=64)
SECRET = "top-secret"


def run_payload(own: Path, name: str, value: object = "", limits: Limits = SMALL) -> None:
    """Run a function of the payload in a sandbox that may write to the folder `own`."""
    own.mkdir()
    code = [ROOT / "model", PAYLOAD]
    argument, python = f"{name}={value}", Path(sys.executable)
    run_confined("payload", argument, python=python, readable=[], writable=own, limits=limits, code=code)


@pytest.fixture(scope="module")
def precious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user, which the payload tries to change."""
    path = tmp_path_factory.mktemp("home") / "precious"
    path.write_text("precious")
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def outcomes(precious: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The result of each attempt by one process in the sandbox: the class of its error, or "done"."""
    own = tmp_path_factory.mktemp("sandbox") / "own"
    with pytest.MonkeyPatch.context() as environment, socket.socket(socket.AF_UNIX) as local:
        for name in ("AUTH__SECRET_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"):
            environment.setenv(name, SECRET)
        local.bind(str(precious.with_name("socket")))
        local.listen()
        with socket.create_server(("127.0.0.1", 0)) as server:
            attempts = {
                "start_thread": "",
                "write_in_own_folder": "",
                "check_environment": SECRET,
                "fork": "",
                "run_program": "",
                "replace_program": "",
                "raise_limit": "",
                "make_io_uring": "",
                "make_memory_file": "",
                "hide_descriptors": "",
                "connect": str(server.getsockname()[1]),
                "open_unix_socket": str(precious.with_name("socket")),
                "read of the system": "/etc/passwd",
                "read of the gateway": str(ROOT / "pyproject.toml"),
                "read of the user": str(precious),
                "list_folder": str(ROOT),
                "write": str(precious),
                "overwrite": str(precious),
                "change_mode": str(precious),
                "move_out": str(precious),
                "make_symlink": str(precious),
                "signal_process": str(os.getpid()),
                "read_environment": str(os.getpid()),
            }
            run_payload(own, "report", json.dumps(attempts))
    found: dict[str, str] = json.loads((own / "outcomes.json").read_text())
    assert found.keys() == attempts.keys()
    return found


@pytest.mark.parametrize("name", ["start_thread", "write_in_own_folder"])
def test_what_a_conversion_needs_is_allowed(name: str, outcomes: dict[str, str]) -> None:
    """The process can start threads, and write files and folders in its own folder."""
    assert outcomes[name] == "done"


def test_environment_has_no_secrets(outcomes: dict[str, str]) -> None:
    """The process gets none of the gateway's variables."""
    assert outcomes["check_environment"] == "done"


@pytest.mark.parametrize("name", ["fork", "run_program", "replace_program", "raise_limit", "make_io_uring"])
def test_no_process_is_started_and_no_limit_is_raised(name: str, outcomes: dict[str, str]) -> None:
    """New processes, other programs, higher limits and io_uring, whose calls bypass the filter, are denied."""
    assert outcomes[name] == "PermissionError"


@pytest.mark.parametrize("name", ["connect", "open_unix_socket"])
def test_network_cannot_be_reached(name: str, outcomes: dict[str, str]) -> None:
    """Neither a TCP port nor a Unix socket of the same machine can be connected to, although both listen."""
    assert outcomes[name] == "PermissionError"


@pytest.mark.parametrize("name", ["read of the system", "read of the gateway", "read of the user", "list_folder"])
def test_other_files_cannot_be_read(name: str, outcomes: dict[str, str]) -> None:
    """Files of the system, the gateway and the user cannot be read, and their folders cannot be listed."""
    assert outcomes[name] == "PermissionError"


@pytest.mark.parametrize("name", ["write", "overwrite", "change_mode", "move_out", "make_symlink"])
def test_other_files_cannot_be_changed(name: str, outcomes: dict[str, str], precious: Path) -> None:
    """No other file can be written, emptied, replaced or given another mode, and no link can be made."""
    assert outcomes[name] in {"PermissionError", "OSError"}
    assert precious.read_text() == "precious"
    assert precious.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["signal_process", "read_environment"])
def test_other_processes_cannot_be_reached(name: str, outcomes: dict[str, str]) -> None:
    """The parent process can neither be signalled nor can its environment be read."""
    assert outcomes[name] == "PermissionError"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("allocate", 2 << 30, "memory or disk space"),
        ("spin", "", "processor time"),
        ("write_large_file", 1 << 30, "memory or disk space"),
        ("write_many_files", 200, "wrote more than"),
        ("open_many_files", 200, "memory or disk space"),
    ],
)
def test_each_limit_ends_the_process(name: str, value: object, message: str, tmp_path: Path) -> None:
    """Exceeding a limit on memory, processor time, file size, size of all files or open files ends the import."""
    with pytest.raises(ImportLimitExceeded, match=message):
        run_payload(tmp_path / "own", name, value, replace(SMALL, cpu_seconds=1) if name == "spin" else SMALL)


def test_open_files_count_once_they_are_unlinked(tmp_path: Path) -> None:
    """Files that the process has unlinked but still writes to count like the files in its folder."""
    with pytest.raises(ImportLimitExceeded, match="wrote more than"):
        run_payload(tmp_path / "own", "write_unlinked_files", 3)


@pytest.mark.parametrize("name", ["make_memory_file", "hide_descriptors"])
def test_no_file_is_hidden_from_the_limit(name: str, outcomes: dict[str, str]) -> None:
    """The process can neither create files in memory nor hide its open files from the process that monitors it."""
    assert outcomes[name] == "PermissionError"


def test_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """A process that runs longer than allowed is killed."""
    with pytest.raises(ImportLimitExceeded, match="did not end within 1 s"):
        run_payload(tmp_path / "own", "spin", limits=Limits(wall_seconds=1, cpu_seconds=600))


def test_failure_has_a_message_without_control_characters(tmp_path: Path) -> None:
    """The error contains what the process printed before it failed, as one line of printable characters."""
    with pytest.raises(ImportFailed) as failure:
        run_payload(tmp_path / "own", "fail", "\x1b[2Jcannot load")
    assert str(failure.value) == "?[2Jcannot load"

"""The directory that workers share."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from api.server.shared_directory import Processes, read_processes, shared_directory, write_processes
from tests.support.polling import wait_until

KILLED_GATEWAY = """
import os, signal
from api.server.shared_directory import shared_directory

with shared_directory() as directory:
    print(directory, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_directory_is_private_and_temporary() -> None:
    """The directory is empty at first, only its owner can read it, and it is removed with its content."""
    with shared_directory() as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert list(directory.iterdir()) == []
        (directory / "file").touch()
    assert not directory.exists()


def test_directory_of_killed_gateway_is_removed() -> None:
    """The next start removes the directory of a killed gateway, but not that of a running one."""
    command = [sys.executable, "-c", KILLED_GATEWAY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    abandoned = Path(done.stdout.strip())
    os.utime(abandoned, (0, 0))
    with shared_directory() as running:
        os.utime(running, (0, 0))
        with shared_directory():
            assert running.exists()
            wait_until(lambda: not abandoned.exists())  # another gateway that is starting may be removing it
    shutil.rmtree(abandoned, ignore_errors=True)


def test_directory_on_a_full_memory_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """If /dev/shm has too little space, the directory is in the folder for temporary files."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 << 10))
    with shared_directory() as directory:
        assert directory.parent == Path(tempfile.gettempdir())


def test_a_list_that_cannot_be_written(tmp_path: Path) -> None:
    """An error of the disk is logged: it must not end the supervisor, which writes the list."""
    write_processes(tmp_path, Processes([1, 2], 0))
    (tmp_path / "processes.new").mkdir()
    with capture_logs() as logs:
        write_processes(tmp_path, Processes([1, 2, 3], 1))
    assert [(line["event"], line["reason"]) for line in logs] == [("processes_not_listed", "Is a directory")]
    assert read_processes(tmp_path).pids == [1, 2]

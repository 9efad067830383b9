"""The directory that workers share."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from api.server.shared_directory import shared_directory
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

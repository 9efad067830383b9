"""The folder that workers share."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from api.server.shared_directory import shared_folder

KILLED = """
import os, signal
from api.server.shared_directory import shared_folder

with shared_folder() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_private_and_temporary() -> None:
    """It is empty, nobody else may look into it, and it is gone afterwards with what was in it."""
    with shared_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
    assert not folder.exists()


def test_what_was_left_behind_is_removed() -> None:
    """The folder of a gateway that was killed goes at the next start; that of one which lives stays."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False, timeout=60)
    left = Path(done.stdout.strip())
    os.utime(left, (0, 0))
    with shared_folder() as living:
        os.utime(living, (0, 0))
        with shared_folder():
            assert living.exists()
            assert not left.exists()
    shutil.rmtree(left, ignore_errors=True)

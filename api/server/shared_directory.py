"""The folder that the workers of one gateway share: in memory where the system has a place for that, and private."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = f"atalaya-{os.getuid()}-"
_SETTLED_S = 60
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  (mkdtemp makes a name that nobody can guess)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """An empty folder (0700) until the context ends. Those that killed gateways have left behind are removed."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # Held by this process and, through fork, by every worker: as long as one lives the folder is in use.
    lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # One that has just been made may not be locked yet.
            old = time.time() - folder.lstat().st_mtime > _SETTLED_S
            if old and folder.lstat().st_uid == os.getuid() and (lock := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder, or None where another process does. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor

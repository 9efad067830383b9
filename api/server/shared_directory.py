"""The private directory that the workers of one gateway share, in memory if the system has /dev/shm.

It holds the list of the gateway's processes, which the supervisor writes and the workers read.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from msgspec import Struct
from msgspec.structs import asdict

_PROCESSES = "processes.json"
_PREFIX = f"atalaya-{os.getuid()}-"
_MIN_AGE_S = 60  # a younger directory may not be locked yet
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  (mkdtemp adds an unpredictable name)
_NEEDED_BYTES = 16 << 20  # for the metrics of many workers; the files are larger, but mostly empty

log = structlog.get_logger("atalaya.workers")


class Processes(Struct, frozen=True):
    """The process ids of a gateway, the supervisor's first, and how many workers have died so far."""

    pids: Sequence[int]
    restarts: int


@contextmanager
def shared_directory() -> Iterator[Path]:
    """Yield an empty directory (0700), and remove it afterwards. Also removes directories that killed gateways left."""
    parent = _IN_MEMORY if _is_usable(_IN_MEMORY) else Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # Forked workers hold the lock too: the directory is in use as long as one of them runs.
    lock = _lock(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def write_processes(directory: Path, processes: Processes) -> None:
    """Replace the list of processes atomically. If the disk is full, the old list stays, and an error is logged."""
    path = directory / _PROCESSES
    try:
        path.with_suffix(".new").write_text(json.dumps(asdict(processes)))
        path.with_suffix(".new").replace(path)
    except OSError as error:
        log.error("processes_not_listed", reason=error.strerror, policy="metrics of processes are incomplete")


def read_processes(directory: Path) -> Processes:
    return Processes(**json.loads((directory / _PROCESSES).read_text()))


def _is_usable(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= _NEEDED_BYTES


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = directory.lstat()
            old = time.time() - status.st_mtime > _MIN_AGE_S
            if old and status.st_uid == os.getuid() and (lock := _lock(directory)) is not None:
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)


def _lock(directory: Path) -> int | None:
    """Lock the directory; returns a descriptor, or None if another process holds the lock. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor

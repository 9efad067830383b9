"""Folders that several processes change: taking turns, and making a new entry durable."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Wait for the folder's exclusive lock and hold it. The kernel frees the lock of a process that is killed.

    Raises OSError, also where `.lock` is a symbolic link.
    """
    descriptor = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_lock_folder(folder: Path, name: str) -> Iterator[bool]:
    """Hold the folder's exclusive lock of that name, unless another process does; yields whether it is held.

    Raises OSError.
    """
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make durable what was created, renamed or removed in the folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

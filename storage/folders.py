"""Folders that several processes change: taking turns, and making a new entry durable."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Wait for the folder's exclusive lock and hold it. The kernel frees the lock of a process that is killed.

    Raises OSError, also where `.lock` is a symbolic link.
    """
    descriptor = _open_lock(folder, ".lock")
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
    descriptor = _open_lock(folder, name)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def _open_lock(folder: Path, name: str) -> int:
    """Open the file for writing. Only those who may write to the folder can do so: a reader could keep it locked."""
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    like = folder.stat()
    share_as(descriptor, like, 0o660 if like.st_mode & stat.S_IWGRP else 0o600)
    return descriptor


def share_as(path: int | Path, like: os.stat_result, mode: int) -> None:
    """Give a file or folder the mode, and the owner and group of another one, as far as this process may."""
    found = os.stat(path)
    if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid):
        for owner in (like.st_uid, -1):  # only root can give a file to somebody else
            with suppress(OSError):
                os.chown(path, owner, like.st_gid)
                break
    if stat.S_IMODE(found.st_mode) != mode:
        with suppress(OSError):
            os.chmod(path, mode)


def sync_folder(folder: Path) -> None:
    """Make durable what was created, renamed or removed in the folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

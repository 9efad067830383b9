"""Locks, access rights and durable changes for folders that several processes share."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Wait for the folder's exclusive lock and hold it. The kernel releases the lock of a process that is killed.

    Raises OSError, including when `.lock` is a symbolic link.
    """
    descriptor = _open_lock(folder, ".lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_lock_folder(folder: Path, name: str) -> Iterator[bool]:
    """Hold the exclusive lock `name` of the folder unless it is already held; yields whether it was acquired.

    Raises OSError.
    """
    descriptor = _open_lock(folder, name)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            acquired = True
        except BlockingIOError:
            acquired = False
        yield acquired
    finally:
        os.close(descriptor)


def _open_lock(folder: Path, name: str) -> int:
    """Open the lock file. Only users who may write to the folder can open it: others could hold the lock forever."""
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    like = folder.stat()
    copy_access(descriptor, like, 0o660 if like.st_mode & stat.S_IWGRP else 0o600)
    return descriptor


def copy_access(path: int | Path, like: os.stat_result, mode: int) -> None:
    """Set the mode of a file or folder, and give it the owner and group of `like`, as far as this process may."""
    status = os.stat(path)
    if (status.st_uid, status.st_gid) != (like.st_uid, like.st_gid):
        for owner in (like.st_uid, -1):  # only root can change the owner
            with suppress(OSError):
                os.chown(path, owner, like.st_gid)
                break
    if stat.S_IMODE(status.st_mode) != mode:
        with suppress(OSError):
            os.chmod(path, mode)


def sync_folder(folder: Path) -> None:
    """Make the creation, renaming and removal of entries in the folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

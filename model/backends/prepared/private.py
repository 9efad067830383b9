"""Folders and files that only this user can access: opened without following links, and checked after opening."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.backends.prepared.errors import PreparedCopyRejected

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


def make_private_folder(path: Path) -> None:
    """Create the folder and its parents, if necessary. Raises OSError, PreparedCopyRejected."""
    path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
    with open_private_folder(path):
        pass


@contextmanager
def open_private_folder(path: Path, parent: int | None = None) -> Iterator[int]:
    """Yield a descriptor of the folder. A relative `path` starts at the folder with the descriptor `parent`.

    Raises OSError, and PreparedCopyRejected if other users can read or write the folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        _check_private(os.fstat(descriptor), path)
        yield descriptor
    finally:
        os.close(descriptor)


def read_private_file(name: str, folder: int, limit: int) -> bytes:
    """Return the file's contents. Raises OSError, and PreparedCopyRejected if the file is too large or not private."""
    with os.fdopen(_open_file(name, folder, limit), "rb") as file:
        return file.read(limit)


def map_private_file(name: str, folder: int, limit: int) -> memoryview:
    """Map the file into memory, read-only. Raises the same errors as `read_private_file`."""
    with os.fdopen(_open_file(name, folder, limit), "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")  # an empty file cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ))


def release_pages(mapping: memoryview) -> None:
    """Unmap the pages of a mapped file from this process; later reads get them from the page cache again."""
    if isinstance(mapping.obj, mmap.mmap) and sys.platform == "linux":
        mapping.obj.madvise(mmap.MADV_DONTNEED)


def write_private_file(name: str, folder: int, data: bytes) -> None:
    """Create a file with `data` and sync it to disk. Raises OSError, for example if the file already exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, _FILE_MODE, dir_fd=folder), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def seal_file(name: str, folder: int) -> None:
    """Make a file that another library created private, and sync it to disk. Raises OSError."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.fchmod(descriptor, _FILE_MODE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_file(name: str, folder: int, limit: int) -> int:
    # Without O_NONBLOCK, opening a named pipe would wait for its writer.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        _check_private(status, Path(name))
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size > limit:
            raise PreparedCopyRejected(f"{name} is not a regular file of at most {limit} bytes")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_private(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise PreparedCopyRejected(f"{path} belongs to another user")
    if status.st_mode & 0o077:
        raise PreparedCopyRejected(f"other users have access to {path}")

"""Files that only their owner can read and write (mode 0600), because they hold secrets or personal data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import TextIO

from storage.folders import sync_folder

_PRIVATE = 0o600
# Files that SQLite creates beside a database, with the mode of the database.
_SQLITE_SUFFIXES = ("-wal", "-shm", "-journal")


def restrict_file(path: Path) -> None:
    """Remove the rights of all other users, if the file exists and its mode can be changed."""
    with suppress(OSError):
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(mode & 0o700)


def create_sqlite_file(path: Path) -> None:
    """Create the file of an SQLite database, or restrict it and those beside it.

    Errors are ignored: SQLite itself reports a file that cannot be created.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
        return
    if path.is_file():
        for name in (path.name, *(f"{path.name}{suffix}" for suffix in _SQLITE_SUFFIXES)):
            restrict_file(path.with_name(name))


@contextmanager
def replace_private_file(path: Path) -> Iterator[tuple[Path, TextIO]]:
    """Write a file with mode 0600 that replaces `path` at the end; yields its temporary path and the open file.

    If the context ends with an exception, `path` is unchanged. Otherwise, the new file is on the disk when the context
    has ended. Raises OSError.
    """
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield temporary, file
            file.flush()
            os.fsync(file.fileno())  # otherwise a power failure could leave an empty file
        temporary.replace(path)
        with suppress(PermissionError):  # folders can be writable without being readable
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)

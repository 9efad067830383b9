"""Creates files that get their final name only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from api.commands.group import reporting_write_errors
from api.errors import CommandFailed
from storage.folders import sync_folder


@contextmanager
def open_new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that only its owner can read; it gets its name when the context ends without an error.

    Until then its name is `.NAME.partial`. An error removes it; it stays if the process is killed.

    Raises CommandFailed.
    """
    if os.path.lexists(path):
        raise CommandFailed(f"{path} already exists. Name a new file.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandFailed(f"{partial} already exists. Remove it unless it is being written.") from None
    except OSError as error:
        raise CommandFailed(f"{path} cannot be created: {error.strerror}. Name another file.") from None
    try:
        # After a failed write, closing the file fails too, and `reporting_write_errors` reports this second error.
        with reporting_write_errors(path), os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        with reporting_write_errors(path):
            path.touch(0o600, exist_ok=False)  # unlike `replace`, fails if another process has created the file
            partial.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise

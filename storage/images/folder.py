"""Sealed images in a local folder: a folder for each owner, and a file for each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from storage.images.blobs import is_uuid
from storage.images.errors import ImageStoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")
_BLOCK_BYTES = 512  # the unit of st_blocks on Linux and macOS; POSIX defines none


def _reporting_failures(method: Callable[P, T]) -> Callable[P, T]:
    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            raise ImageStoreUnavailable(error.strerror or type(error).__name__) from error

    return call


class ImageFolder:
    """Stores images in files (0600) and folders (0700) that only the gateway's own user can read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @_reporting_failures
    def write(self, owner: str, name: str, data: bytes) -> None:
        path = self._folder / owner / name
        incomplete = path.with_name(f".{name}")
        descriptor = self._create(owner, incomplete)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # otherwise a power failure after the rename could leave an empty file
            incomplete.rename(path)
        except OSError:
            incomplete.unlink(missing_ok=True)
            raise

    @_reporting_failures
    def read(self, owner: str, name: str) -> bytes | None:
        try:
            return (self._folder / owner / name).read_bytes()
        except FileNotFoundError:
            return None

    @_reporting_failures
    def list_owners(self) -> Sequence[str]:
        if not self._folder.exists():
            return []
        return sorted(name for name in os.listdir(self._folder) if is_uuid(name))

    @_reporting_failures
    def measure(self) -> int:
        return sum(self._measure_owner(owner) for owner in self.list_owners())

    def list(self, owner: str) -> Iterator[str]:
        yield from self._list(owner)

    @_reporting_failures
    def _list(self, owner: str) -> Sequence[str]:
        try:
            with os.scandir(self._folder / owner) as entries:
                return sorted(entry.name for entry in entries if not entry.is_dir())  # some systems add folders
        except FileNotFoundError:
            return []

    def _create(self, owner: str, path: Path) -> int:
        """Create a file and the owner's folder. Try twice: `remove` in another process may delete the empty folder."""
        # mkdir raises FileExistsError if another process removes the folder while mkdir checks it.
        with suppress(FileNotFoundError, FileExistsError):
            return self._create_once(owner, path)
        return self._create_once(owner, path)

    def _create_once(self, owner: str, path: Path) -> int:
        self._make_folder(owner)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def _make_folder(self, owner: str) -> None:
        folder = self._folder / owner
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:  # mkdir(parents=True) would create the parent with the default mode
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _measure_owner(self, owner: str) -> int:
        size = 0
        with suppress(FileNotFoundError), os.scandir(self._folder / owner) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process has removed it
                    size += _measure_file(entry.stat())
        return size

    @_reporting_failures
    def remove(self, owner: str, names: Sequence[str]) -> None:
        folder = self._folder / owner
        for name in names:
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # the folder holds other images, or another process is writing one
            folder.rmdir()


def _measure_file(status: os.stat_result) -> int:
    """Return the space that a file takes in bytes: its length or, if larger, its blocks (some systems report none)."""
    return max(status.st_blocks * _BLOCK_BYTES, status.st_size)

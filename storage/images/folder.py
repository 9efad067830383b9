"""Sealed images in a local folder: a folder for each owner, and a file for each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from storage.images.blobs import Blob, is_uuid
from storage.images.errors import ImageStoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")


def _reporting_failures(method: Callable[P, T]) -> Callable[P, T]:
    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            raise ImageStoreUnavailable(error.strerror or type(error).__name__) from error

    return call


class ImageFolder:
    """Only the gateway's own user can read the files (0600) and the folders (0700)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @_reporting_failures
    def write(self, owner: str, name: str, data: bytes) -> None:
        path = self._folder / owner / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        incomplete = path.with_name(f".{name}")
        descriptor = os.open(incomplete, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
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

    def list(self, owner: str) -> Iterator[Blob]:
        yield from self._list(owner)

    @_reporting_failures
    def _list(self, owner: str) -> Sequence[Blob]:
        blobs = []
        with suppress(FileNotFoundError), os.scandir(self._folder / owner) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process has removed it meanwhile
                    blobs.append(Blob(entry.name, entry.stat().st_size))
        return sorted(blobs, key=lambda blob: blob.name)

    @_reporting_failures
    def remove(self, owner: str, names: Sequence[str]) -> None:
        folder = self._folder / owner
        for name in names:
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # there are others, or another process is writing one
            folder.rmdir()

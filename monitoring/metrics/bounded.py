"""Limits the number of series if a label has many values, such as one for each caller."""

from __future__ import annotations

import fcntl
import json
from contextlib import suppress
from pathlib import Path
from typing import IO

OTHER = "other"


class NameLimit:
    """Chooses the first `limit` names; all others share the name OTHER.

    A chosen name is never replaced: if its counts moved to OTHER, one counter would seem to fall and the other to rise.
    Processes that share a file choose the same names.
    """

    def __init__(self, limit: int, path: Path | None = None) -> None:
        self._limit = limit
        self._path = path
        self._chosen: set[str] = set()

    def find(self, name: str) -> str:
        """Return the name, or OTHER."""
        if name not in self._chosen and len(self._chosen) < self._limit:
            with suppress(OSError, ValueError):  # a metric must not fail a request: OTHER is used instead
                self._choose(name)
        return name if name in self._chosen else OTHER

    def _choose(self, name: str) -> None:
        if self._path is None:
            self._chosen.add(name)
            return
        with self._path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is choosing: do not wait, but try again at the next request
                return
            self._chosen = _read_names(file)
            if name not in self._chosen and len(self._chosen) < self._limit:
                file.write(f"{json.dumps(name)}\n")
                self._chosen.add(name)


def _read_names(file: IO[str]) -> set[str]:
    file.seek(0)
    return {json.loads(line) for line in file}

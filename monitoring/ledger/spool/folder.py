"""The folder that the spools of all processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from monitoring.ledger.spool.queue import Spool, SpoolInUse
from storage.folders import lock_folder
from storage.private_files import restrict_file

_SUFFIX = ".spool"


class SpoolFolder(Struct, frozen=True):
    """The folder, and the limit of each spool in bytes; `database` is the path of the database's file, if any."""

    path: Path
    limit_bytes: int
    database: Path | None = None
    open_spool: Callable[[Path, int], Spool] = Spool

    def open(self, writer: str) -> list[Spool]:
        """Open the spools that ended processes left behind, and a new one for `writer`, the last. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        restrict_file(self.path)
        with lock_folder(self.path):
            return [*self._open_left_behind(), self.open_spool(self.path / f"{writer}{_SUFFIX}", self.limit_bytes)]

    def shares_disk(self) -> bool:
        """Whether the database's file is on the same file system, so that a full disk stops both."""
        with suppress(OSError):
            return self.database is not None and self.database.stat().st_dev == self.path.stat().st_dev
        return False

    def _open_left_behind(self) -> Iterator[Spool]:
        for path in sorted(self.path.glob(f"*{_SUFFIX}")):
            with suppress(SpoolInUse):
                yield self.open_spool(path, self.limit_bytes)

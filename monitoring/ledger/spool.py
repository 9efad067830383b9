"""Where entries wait while the database is away: one small SQLite file a process, durable after each batch."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PAGE_BYTES = 4096
_PROBE_BYTES = 64 * 1024
_SUFFIX = ".spool"


class SpoolFull(Exception):
    """Neither its limit nor the disk leaves room; nothing of the batch was kept."""


class SpoolTaken(Exception):
    """Another process is using the file."""


class Spool:
    """A queue of texts in a file that no other process can open meanwhile. Raises SpoolTaken, OSError.

    One thread uses it at a time. What `append` has returned from survives a crash and a power cut.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._open()

    def _open(self) -> None:
        path = self.path
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS waiting (place INTEGER PRIMARY KEY, text TEXT)")
            self._connection.execute("CREATE TABLE IF NOT EXISTS room (place INTEGER PRIMARY KEY, text TEXT)")
            self._connection.execute("DELETE FROM room")
            self._connection.execute("UPDATE waiting SET text = text WHERE 0")
            self._connection.execute(f"PRAGMA max_page_count = {self._limit_bytes // _PAGE_BYTES}")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if "locked" in str(error):
                raise SpoolTaken from error
            raise OSError(f"{path} cannot be used: {error}") from error
        (self.waiting,) = self._connection.execute("SELECT count(*) FROM waiting").fetchone()
        self._owed = 0  # of the oldest, how many are done with and could not be deleted

    def append(self, texts: Sequence[str]) -> None:
        """Raises SpoolFull."""
        try:
            with _transaction(self._connection):
                self._connection.executemany("INSERT INTO waiting (text) VALUES (?)", [(text,) for text in texts])
        except sqlite3.Error as error:
            raise SpoolFull from error
        self.waiting += len(texts)

    def has_capacity(self) -> bool:
        """Whether some dozens of entries would fit: tried out, for a full disk may still take a few bytes."""
        try:
            with _transaction(self._connection):
                self._connection.execute("INSERT OR REPLACE INTO room VALUES (1, ?)", ("x" * _PROBE_BYTES,))
            self._connection.execute("DELETE FROM room")
        except sqlite3.Error:
            return False
        return True

    def first(self, count: int) -> list[str]:
        """The oldest texts, in their order."""
        rows = self._connection.execute("SELECT text FROM waiting ORDER BY place LIMIT ? OFFSET ?", (count, self._owed))
        return [text for (text,) in rows]

    def last(self) -> list[str]:
        """The newest text, if there is one."""
        rows = self._connection.execute("SELECT text FROM waiting ORDER BY place DESC LIMIT 1")
        return [text for (text,) in rows]

    def remove_first(self, count: int) -> None:
        """Forget the oldest texts; on a full disk they are deleted with the last, or come again after a crash."""
        self.waiting -= count
        self._owed += count
        oldest = "SELECT place FROM waiting ORDER BY place LIMIT ?"
        try:
            self._connection.execute(f"DELETE FROM waiting WHERE place IN ({oldest})", (self._owed,))  # noqa: S608
            self._owed = 0
            if not self.waiting:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is erased elsewhere is not kept here
        except sqlite3.Error:
            if not self.waiting:
                self._begin_again()

    def _begin_again(self) -> None:
        """In another file, where nothing more can be written to one that holds nothing of use: that takes no room."""
        with _turn(self.path.parent), suppress(OSError):
            self.close()
            self._open()

    def close(self) -> None:
        """The file goes away when nothing waits in it."""
        self._connection.close()
        if not self.waiting:
            for path in self.path.parent.glob(f"{self.path.name}*"):
                with suppress(FileNotFoundError):
                    path.unlink()


def open_spools(folder: Path, writer: str, limit_bytes: int) -> list[Spool]:
    """Those of processes that are no more, and at the end a new one. Raises OSError.

    One process at a time: none sees another's new file before that is locked.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _turn(folder):
        return [*_left_behind(folder, limit_bytes), Spool(folder / f"{writer}{_SUFFIX}", limit_bytes)]


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _left_behind(folder: Path, limit_bytes: int) -> Iterator[Spool]:
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(SpoolTaken):
            yield Spool(path, limit_bytes)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has ended the transaction already
            connection.execute("ROLLBACK")
        raise

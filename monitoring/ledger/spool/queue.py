"""A durable queue of texts in one small SQLite file, used by one process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.folders import lock_folder
from storage.private_files import create_sqlite_file

_PAGE_BYTES = 4096
_PROBE_BYTES = 64 * 1024


class SpoolFull(Exception):
    """The limit is reached, or the file cannot be written, as on a full disk. None of the batch was stored."""


class SpoolInUse(Exception):
    """Another process is using the file."""


class Spool:
    """A queue of texts in a file, which it locks for this process. Raises SpoolInUse, OSError.

    Not thread-safe. What `append` has stored survives a crash or a power failure.
    """

    def __init__(
        self, path: Path, limit_bytes: int, connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    ) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._connect = connect
        self._open()

    def _open(self) -> None:
        self._is_open = False
        path = self.path
        create_sqlite_file(path)
        self._connection = self._connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS waiting (place INTEGER PRIMARY KEY, text TEXT)")
            self._connection.execute("DROP TABLE IF EXISTS room")  # of release 0.1.0, which probed with it
            self._connection.execute("CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, text TEXT)")
            self._connection.execute("DELETE FROM probe")
            self._connection.execute("UPDATE waiting SET text = text WHERE 0")
            self._connection.execute(f"PRAGMA max_page_count = {self._limit_bytes // _PAGE_BYTES}")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if "locked" in str(error):
                raise SpoolInUse from error
            raise OSError(f"{path} cannot be used: {error}") from error
        (self.waiting,) = self._connection.execute("SELECT count(*) FROM waiting").fetchone()
        self._undeleted = 0  # how many of the oldest rows are removed from the queue but still in the file
        self._is_open = True

    def append(self, texts: Sequence[str]) -> None:
        """Store the texts in one transaction. Raises SpoolFull."""
        try:
            with self._transaction():
                self._connection.executemany("INSERT INTO waiting (text) VALUES (?)", [(text,) for text in texts])
        except sqlite3.Error as error:
            raise SpoolFull from error
        self.waiting += len(texts)

    def has_capacity(self) -> bool:
        """Whether a few dozen entries would fit. Writes a test row: a full disk may still accept a few bytes."""
        try:
            with self._transaction():
                self._connection.execute("INSERT OR REPLACE INTO probe VALUES (1, ?)", ("x" * _PROBE_BYTES,))
            self._connection.execute("DELETE FROM probe")
        except sqlite3.Error:
            return False
        return True

    def read_first(self, count: int) -> list[str]:
        """Return the `count` oldest texts in order."""
        statement = "SELECT text FROM waiting ORDER BY place LIMIT ? OFFSET ?"
        return [text for (text,) in self._connection.execute(statement, (count, self._undeleted))]

    def read_last(self) -> str | None:
        """Return the newest text, if there is one."""
        row = self._connection.execute("SELECT text FROM waiting ORDER BY place DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def remove_first(self, count: int) -> None:
        """Remove the oldest texts. On a full disk, their rows are deleted later; a crash before that restores them."""
        self.waiting -= count
        self._undeleted += count
        oldest = "SELECT place FROM waiting ORDER BY place LIMIT ?"
        try:
            self._connection.execute(f"DELETE FROM waiting WHERE place IN ({oldest})", (self._undeleted,))  # noqa: S608
            self._undeleted = 0
            if not self.waiting:
                # Text that is erased from the database later must not remain in this file.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            if not self.waiting:
                self._replace_file()

    def _replace_file(self) -> None:
        """Start a new file: on a full disk, rows cannot be deleted from the old file, but the file itself can.

        If the new file cannot be opened, `append` and `has_capacity` fail, and each call tries again.
        """
        with suppress(OSError, SpoolInUse, sqlite3.Error), lock_folder(self.path.parent):
            self.close()
            self._open()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if not self._is_open:
            self._replace_file()
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has ended the transaction already
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file, and delete it if it is empty."""
        self._connection.close()
        if not self.waiting:
            for path in self.path.parent.glob(f"{self.path.name}*"):
                with suppress(FileNotFoundError):
                    path.unlink()

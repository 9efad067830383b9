"""The log in files, for machines without a collector: one for each day, and more if a day's file becomes too large.

The date is in the name, so that several processes append to the same file without renaming it. Each appends whole lines
in one system call, which the kernel does not interleave with other writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import structlog
from msgspec import Struct

from monitoring.logs.destination_state import DestinationState
from monitoring.logs.line_queue import LineQueue, OnDrop, QueueLimits

_FILES_PER_LIMIT = 16  # how many files of the maximum size fit into `keep_bytes`

log = structlog.get_logger("atalaya.logs")


class LogFiles(Struct, frozen=True):
    """The files of a log: `path` is NAME.log, and they are NAME-2026-11-26.log, NAME-2026-11-26.1.log and so on."""

    path: Path
    keep_days: int
    keep_bytes: int

    @property
    def max_file_bytes(self) -> int:
        return max(1, self.keep_bytes // _FILES_PER_LIMIT)

    def name(self, day: date, number: int) -> Path:
        suffix = f".{number}" if number else ""
        return self.path.with_name(f"{self.path.stem}-{day.isoformat()}{suffix}{self.path.suffix}")

    def find(self) -> list[tuple[date, int, Path]]:
        """Return the files with their days and numbers, oldest first. Raises OSError."""
        return sorted(self._find()) if self.path.parent.is_dir() else []

    def _find(self) -> Iterator[tuple[date, int, Path]]:
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        pattern = re.compile(rf"{stem}-(\d{{4}}-\d\d-\d\d)(?:\.(\d+))?{suffix}")
        for entry in os.scandir(self.path.parent):
            match = pattern.fullmatch(entry.name)
            if match is not None:
                try:
                    yield date.fromisoformat(match[1]), int(match[2] or 0), Path(entry.path)
                except ValueError:
                    continue

    def remove_old(self, today: date) -> int:
        """Remove files older than `keep_days`, and the oldest while the total exceeds `keep_bytes`.

        Keeps the newest file. Returns the number of removed files. Raises OSError.
        """
        files = [(day, path, path.stat().st_size) for day, _, path in self.find()]
        total = sum(size for *_, size in files)
        removed = 0
        for day, path, size in files[:-1]:
            if today - day < timedelta(days=self.keep_days) and total <= self.keep_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        return removed


class LogFileWriter(LineQueue):
    """A queue whose thread appends the lines to the current file of a log.

    Lines that cannot be written, for example because the disk is full, are dropped and counted. The beginning and the
    end of a failure are logged once each. Opening a new file removes old ones.
    """

    def __init__(
        self,
        files: LogFiles,
        report: OnDrop,
        on_drop: OnDrop,
        *,
        limits: QueueLimits | None = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._files = files
        self._today = today
        self._descriptor = -1
        super().__init__(report, on_drop, limits or QueueLimits())

    @property
    def name(self) -> str:
        return "log-file"

    def reset(self) -> None:
        super().reset()
        self._close()
        self._day: date | None = None
        self._number = 0
        self._state = DestinationState(_log_failure, _log_recovery)

    def write_batch(self, lines: Sequence[bytes]) -> None:
        problem: str | None = None
        try:
            self._open_file()
            written = self._append(b"".join(lines))
        except OSError as error:
            written, problem = 0, error.strerror or type(error).__name__
        complete = _count_complete(lines, written)
        if complete < len(lines):
            problem = problem or "No space left on device"
            self.count_dropped(len(lines) - complete)
        self._state.report(problem)

    def _open_file(self) -> None:
        """Open another file on a new day, when the current one has reached its maximum size, or when it was deleted.

        Raises OSError.
        """
        today = self._today()
        if today != self._day:
            self._close()
            self._day, self._number = today, 0
        while True:
            if self._descriptor < 0:
                self._open(self._files.name(today, self._number))
            status = os.fstat(self._descriptor)
            if status.st_nlink and status.st_size < self._files.max_file_bytes:
                return
            self._close()
            self._number += status.st_nlink > 0

    def _open(self, path: Path) -> None:
        """Open a file; if it is new, remove old files. Raises OSError."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not path.exists()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if is_new:
            with suppress(OSError):  # such as a file that another process has just removed
                self._files.remove_old(self._today())

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._ends_in_part = -1, False

    def _append(self, text: bytes) -> int:
        """Append with one call; return how many bytes of the text were written. Raises OSError."""
        lead = b"\n" if self._ends_in_part else b""
        written = os.write(self._descriptor, lead + text) - len(lead)
        self._ends_in_part = written < len(text) and not text[: max(written, 0)].endswith(b"\n")
        return written


def _log_failure(reason: str) -> None:
    log.error("log_file_unwritable", reason=reason, policy="lines are dropped and counted")


def _log_recovery() -> None:
    log.info("log_file_writable")


def _count_complete(lines: Sequence[bytes], written: int) -> int:
    """Return how many lines are complete within their first `written` bytes."""
    complete = 0
    for line in lines:
        written -= len(line)
        if written < 0:
            break
        complete += 1
    return complete

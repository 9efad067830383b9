"""Log files: a new one for each day, several writers, retention, and full disks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from monitoring.logs.files import LogFiles, LogFileWriter
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S

DAY = date(2026, 11, 26)
LINE = b'{"message": "%d"}\n'
WRITERS = 4
LINES = 2000

WRITING = f"""
import sys
from datetime import date
from pathlib import Path
from monitoring.logs.files import LogFiles, LogFileWriter
from monitoring.logs.line_queue import QueueLimits
files = LogFiles(Path(sys.argv[1]), keep_days=2, keep_bytes=16 * 20_000)
limits = QueueLimits(lines=100_000, bytes=100_000_000, batch_bytes=1000, pause_s=0)
writer = LogFileWriter(files, print, print, limits=limits, today=lambda: date(2026, 11, 26))
for number in range({LINES}):
    writer.put(b"%s %d\\n" % (sys.argv[2].encode(), number))
sys.exit(0 if writer.drain({PATIENCE_S}) else 1)
"""


class Writer:
    """A writer of log files whose date the test sets."""

    def __init__(self, path: Path, keep_days: int = 3, keep_bytes: int = 1_000_000) -> None:
        self.day = DAY
        self.dropped = 0
        self.reported: list[int] = []
        self.files = LogFiles(path, keep_days, keep_bytes)
        self.writer = LogFileWriter(self.files, self.reported.append, self._count, today=lambda: self.day)

    def _count(self, lines: int) -> None:
        self.dropped += lines

    def write(self, *numbers: int) -> None:
        """Write lines, and wait until they are written."""
        for number in numbers:
            self.writer.put(LINE % number)
        assert self.writer.drain(PATIENCE_S)

    def names(self) -> list[str]:
        return [path.name for *_, path in self.files.find()]


@pytest.fixture
def make_writer(tmp_path: Path) -> Callable[..., Writer]:
    return lambda **options: Writer(tmp_path / "logs" / "atalaya.log", **options)


def test_each_day_has_its_file(make_writer: Callable[..., Writer], tmp_path: Path) -> None:
    """Lines are appended to the file of the day in UTC, which only its owner can read."""
    writer = make_writer()
    writer.write(1, 2)
    writer.day += timedelta(days=1)
    writer.write(3)
    assert writer.names() == ["atalaya-2026-11-26.log", "atalaya-2026-11-27.log"]
    path = tmp_path / "logs" / "atalaya-2026-11-26.log"
    assert path.read_bytes() == LINE % 1 + LINE % 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_old_files_are_removed_when_a_day_begins(make_writer: Callable[..., Writer]) -> None:
    """Writing the first line of a day removes the log files that are too old, and no other file."""
    writer = make_writer(keep_days=3)
    for _ in range(6):
        writer.write(1)
        writer.day += timedelta(days=1)
    other = writer.files.path.with_name("atalaya-2020-99-99.log")
    other.touch()
    writer.write(1)
    assert writer.names() == [f"atalaya-2026-{month}.log" for month in ("11-30", "12-01", "12-02")]
    assert other.exists()


def test_a_large_day_has_several_files_and_all_together_are_bounded(make_writer: Callable[..., Writer]) -> None:
    """A file that grows too large is followed by another; when all together do, the oldest is removed."""
    writer = make_writer(keep_bytes=16 * 1000)
    for number in range(3000):
        writer.writer.put(LINE % number)
        if number % 50 == 0:
            assert writer.writer.drain(PATIENCE_S)
    writer.write(3000)
    sizes = [path.stat().st_size for *_, path in writer.files.find()]
    assert sum(sizes) <= 16 * 1000 + max(sizes)
    assert len(sizes) > 3
    *_, newest = writer.files.find()
    assert newest[2].read_bytes().endswith(LINE % 3000)
    assert "atalaya-2026-11-26.log" not in writer.names()


def test_several_processes_share_a_file(tmp_path: Path) -> None:
    """Processes that append at the same time, across several files, neither lose nor mix lines."""
    command = [sys.executable, "-c", WRITING, str(tmp_path / "atalaya.log")]
    processes = [subprocess.Popen([*command, f"writer-{number}"], cwd=ROOT) for number in range(WRITERS)]
    assert [process.wait(PATIENCE_S) for process in processes] == [0] * WRITERS
    files = LogFiles(tmp_path / "atalaya.log", 2, 16 * 20_000)
    lines = [line for *_, path in files.find() for line in path.read_text().splitlines()]
    assert len(files.find()) > 2
    assert sorted(lines) == sorted(f"writer-{writer} {number}" for writer in range(WRITERS) for number in range(LINES))


def test_a_full_disk_costs_lines_only(make_writer: Callable[..., Writer], tmp_path: Path) -> None:
    """Lines that a full disk rejects are counted as dropped; later ones are written once there is space again."""
    writer = make_writer()
    path = tmp_path / "logs" / "atalaya-2026-11-26.log"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    writer.write(1, 2)
    assert writer.dropped == 2
    path.unlink()
    path.with_name("atalaya-2026-11-27.log").touch()
    writer.day += timedelta(days=1)
    writer.write(3)
    assert writer.dropped == 2
    assert path.with_name("atalaya-2026-11-27.log").read_bytes() == LINE % 3


def test_a_folder_that_cannot_be_made_costs_lines_only(make_writer: Callable[..., Writer], tmp_path: Path) -> None:
    """While the folder cannot be created, lines are dropped and counted; later ones are written once it can."""
    (tmp_path / "logs").touch()
    writer = make_writer()
    writer.write(1)
    assert writer.dropped == 1
    (tmp_path / "logs").unlink()
    writer.write(2)
    assert writer.dropped == 1
    assert writer.names() == ["atalaya-2026-11-26.log"]


def test_a_deleted_file_is_created_again(make_writer: Callable[..., Writer]) -> None:
    """When someone deletes the current file, the next line creates it again."""
    writer = make_writer()
    writer.write(1)
    writer.files.name(DAY, 0).unlink()
    writer.write(2)
    assert writer.files.name(DAY, 0).read_bytes() == LINE % 2


def test_the_newest_file_is_never_removed(make_writer: Callable[..., Writer]) -> None:
    """The newest file is never removed, however old it is, because the clock may be wrong."""
    writer = make_writer(keep_days=1)
    writer.write(1)
    assert writer.files.remove_old(DAY + timedelta(days=400)) == 0
    assert writer.names() == ["atalaya-2026-11-26.log"]

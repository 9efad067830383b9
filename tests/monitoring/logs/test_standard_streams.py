"""Output through a bounded queue to pipes that are read, blocked or closed."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import F_SETPIPE_SZ, fcntl, ioctl
from typing import TextIO, cast

import pytest

from monitoring.logs.line_queue import QueueLimits
from monitoring.logs.standard_streams import QueuedOutput, QueuedStream
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S, wait_until

PIPE_BYTES = 4096  # the smallest size of a pipe on Linux
MAX_LINES = 100
MAX_BYTES = 50_000

FORKING = """
import os
from monitoring.logs.outputs import drain_logs
from monitoring.logs.standard_streams import queue_standard_streams
queue_standard_streams()
for number in range(1000):
    print(f"parent {number}")
if os.fork() == 0:
    print("child")
    drain_logs()
    os._exit(0)
os.wait()
print("parent after the child")
"""
ENDING = """
import sys
from monitoring.logs.standard_streams import queue_standard_streams
queue_standard_streams()
for number in range(10_000):
    print("x" * 100)
    print("y" * 100, file=sys.stderr)
"""


class Pipe:
    """A small pipe, and the output that writes to it."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl(self.write_end, F_SETPIPE_SZ, PIPE_BYTES)
        self.dropped = 0
        limits = QueueLimits(lines=MAX_LINES, bytes=MAX_BYTES, pause_s=0.001)
        self.output = QueuedOutput(self.write_end, self._report, self._count, limits)

    def _report(self, lines: int) -> None:
        self.output.put(b"%d dropped\n" % lines)

    def _count(self, lines: int) -> None:
        self.dropped += lines

    def block(self) -> None:
        """Put a line that does not fit into the pipe, and return once the writing thread is blocked."""
        self.output.put(b"x" * (2 * PIPE_BYTES) + b"\n")
        wait_until(lambda: self._unread() == PIPE_BYTES)

    def _unread(self) -> int:
        count = array.array("i", [0])
        ioctl(self.read_end, termios.FIONREAD, count)
        return count[0]

    def put(self, lines: range) -> None:
        for number in lines:
            self.output.put(b"%d\n" % number)

    def read_lines(self, count: int) -> list[str]:
        """Return the next `count` lines."""
        received = b""
        while received.count(b"\n") < count:
            received += os.read(self.read_end, 65536)
        return received.decode().splitlines()

    def close_reader(self) -> None:
        os.close(self.read_end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    wait_until(lambda: pipe.output.drain(0.1))
    os.close(pipe.write_end)


@pytest.fixture
def read_pipe(pipe: Pipe) -> Iterator[Pipe]:
    yield pipe
    pipe.close_reader()


def test_lines_arrive_in_order(read_pipe: Pipe) -> None:
    """Each line arrives without waiting for another, and in the order of the calls."""
    for number in range(300):
        read_pipe.put(range(number, number + 1))
        assert read_pipe.read_lines(1) == [str(number)]


def test_a_blocked_reader_costs_lines_instead_of_time(read_pipe: Pipe) -> None:
    """While nobody reads, lines are queued up to the limit, later ones are dropped, and one line has their number."""
    read_pipe.block()
    read_pipe.put(range(1000))
    assert read_pipe.dropped == 1000 - MAX_LINES
    received = read_pipe.read_lines(1 + MAX_LINES + 1)
    assert received[1:] == [*map(str, range(MAX_LINES)), f"{1000 - MAX_LINES} dropped"]
    read_pipe.put(range(5))
    assert read_pipe.read_lines(5) == list("01234")
    assert read_pipe.dropped == 1000 - MAX_LINES


def test_waiting_lines_are_bounded_by_bytes(read_pipe: Pipe) -> None:
    """The queue is limited in bytes as well as in lines."""
    read_pipe.block()
    for _ in range(10):
        read_pipe.output.put(b"y" * 9_999 + b"\n")
    assert read_pipe.dropped == 5
    assert [line[:9] for line in read_pipe.read_lines(7)[1:]] == ["y" * 9] * 5 + ["5 dropped"]


def test_a_line_longer_than_the_queue_is_dropped(read_pipe: Pipe) -> None:
    """A single line that exceeds the byte limit is dropped and reported, and the next is written."""
    read_pipe.output.put(b"z" * (MAX_BYTES + 1))
    assert read_pipe.read_lines(1) == ["1 dropped"]
    read_pipe.put(range(1))
    assert read_pipe.read_lines(1) == ["0"]


def test_drain_waits_for_the_reader_no_longer_than_its_limit(read_pipe: Pipe) -> None:
    """`drain` waits up to its limit, and returns whether all lines were written."""
    assert read_pipe.output.drain(0)
    read_pipe.block()
    assert not read_pipe.output.drain(0.05)
    read_pipe.read_lines(1)
    assert read_pipe.output.drain(PATIENCE_S)


def test_a_closed_reader_is_no_error(pipe: Pipe) -> None:
    """Lines for a closed reader are counted as dropped and cause no error."""
    pipe.close_reader()
    pipe.put(range(3))
    wait_until(lambda: pipe.dropped == 3)
    assert pipe.output.drain(PATIENCE_S)


def test_a_non_blocking_pipe_is_waited_for(read_pipe: Pipe) -> None:
    """If another process has made the pipe non-blocking, a full pipe still loses no line."""
    os.set_blocking(read_pipe.write_end, False)
    read_pipe.block()
    read_pipe.put(range(MAX_LINES))
    assert read_pipe.read_lines(1 + MAX_LINES)[1:] == [*map(str, range(MAX_LINES))]


def test_threads_do_not_mix_their_lines(read_pipe: Pipe) -> None:
    """A text stream queues whole lines, even if several threads write theirs in parts."""
    stream = cast(TextIO, QueuedStream(read_pipe.output))

    def write(letter: str) -> None:
        for _ in range(5):
            print(letter, letter, sep="", file=stream)

    threads = [threading.Thread(target=write, args=[letter]) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_pipe.read_lines(20)) == sorted(["aa", "bb", "cc", "dd"] * 5)


def test_unencodable_text_is_escaped(read_pipe: Pipe) -> None:
    """Text that UTF-8 cannot represent is escaped rather than rejected."""
    QueuedStream(read_pipe.output).write("caf\u00e9 \ud800\n")
    assert read_pipe.read_lines(1) == ["caf\u00e9 \\ud800"]


def test_a_forked_child_writes_its_own_lines_only() -> None:
    """Lines that are queued when a process forks are written once, by the parent; the child writes only its own."""
    ended = subprocess.run(
        [sys.executable, "-c", FORKING], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line != "child"] == [
        *(f"parent {number}" for number in range(1000)),
        "parent after the child",
    ]
    assert lines.count("child") == 1


def test_a_process_ends_although_nobody_reads() -> None:
    """A process exits with status 0 although its standard output and error are full pipes that nobody reads."""
    command = [sys.executable, "-c", ENDING]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(PATIENCE_S) == 0
    assert time.monotonic() - started < PATIENCE_S / 2

"""Standard output and standard error that never block the process: threads write what it prints.

A pipe that nobody reads is soon full, and a write to it then waits for ever. So lines wait in a bounded queue for the
thread that writes them. While the queue is full, new lines are dropped and counted.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import structlog

MAX_LINES = 8192
MAX_BYTES = 1 << 20
DRAIN_LIMIT_S = 1.0  # how long the end of a process waits for the reader
_CHUNK_BYTES = 1 << 16
# After each write: a thread that woke up for every line would compete with the event loop for the interpreter's lock.
_PAUSE_S = 0.05

log = structlog.get_logger("atalaya.logs")

OnDrop = Callable[[int], object]


class QueuedOutput:
    """At most `max_lines` lines and `max_bytes` bytes that wait for a thread to write them to `descriptor`, in order.

    Once a line was dropped, so are all that follow until the thread has written the queue. Then `report` is called in
    the thread with the number of dropped lines. `on_drop` is called with each number that is added to it, and with the
    lines that a closed or full destination has refused, which are not reported.
    """

    def __init__(
        self,
        descriptor: int,
        report: OnDrop,
        on_drop: OnDrop,
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.descriptor = descriptor
        self._report = report
        self._on_drop = on_drop
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Forget everything: a forked child has neither the thread nor the lines of its parent."""
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._written = threading.Condition(self._lock)
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._idle = True
        self._has_thread = False

    def put(self, line: bytes) -> None:
        """Queue a line, or drop it; never blocks."""
        with self._lock:
            full = len(self._lines) >= self._max_lines or self._bytes + len(line) > self._max_bytes
            dropped = full or self._dropped > 0
            if dropped:
                self._dropped += 1
            else:
                self._lines.append(line)
                self._bytes += len(line)
            self._idle = False
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._write_lines, name=f"output-{self.descriptor}", daemon=True).start()
            self._filled.notify()
        if dropped:
            self._on_drop(1)

    def drain(self, limit_s: float) -> bool:
        """Wait until all lines are written, at most `limit_s` seconds; returns whether they are."""
        with self._lock:
            return self._written.wait_for(lambda: self._idle, limit_s)

    def acquire(self) -> None:
        """Hold the lock while the process forks, so that the child finds it free."""
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def _write_lines(self) -> None:
        while True:
            chunk, lines, dropped = self._take()
            if lines:
                self._write(chunk, lines)
                time.sleep(_PAUSE_S)
            else:
                self._report(dropped)

    def _take(self) -> tuple[bytes, int, int]:
        """Wait for something to do; return a chunk of lines and their number, or else how many were dropped."""
        with self._lock:
            while not self._lines and not self._dropped:
                self._idle = True
                self._written.notify_all()
                self._filled.wait()
            chunk: list[bytes] = []
            size = 0
            while self._lines and size < _CHUNK_BYTES:
                chunk.append(self._lines.popleft())
                size += len(chunk[-1])
            self._bytes -= size
            dropped = 0
            if not chunk:
                dropped, self._dropped = self._dropped, 0
            return b"".join(chunk), len(chunk), dropped

    def _write(self, chunk: bytes, lines: int) -> None:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:  # another process has made the shared pipe non-blocking
                select.select([], [self.descriptor], [])
            except OSError:
                self._on_drop(lines)
                return


class QueuedStream(io.TextIOBase):
    """A text stream whose lines a QueuedOutput writes."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, output: QueuedOutput) -> None:
        self._output = output
        self._thread = threading.local()  # has the incomplete line of each thread

    def write(self, text: str) -> int:
        """Queue the complete lines, and keep the rest for the thread's next call."""
        lines, newline, rest = (getattr(self._thread, "rest", "") + text).rpartition("\n")
        self._thread.rest = rest
        if newline:
            self._output.put((lines + newline).encode(self.encoding, self.errors))
        return len(text)

    def flush(self) -> None:
        """Does nothing, because it must not block; see `drain_standard_streams`."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._output.descriptor)

    def fileno(self) -> int:
        return self._output.descriptor


class _DropCounter:
    """The dropped lines of this process, and who wants to know of them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lines = 0
        self.listeners: list[OnDrop] = []

    def add(self, lines: int) -> None:
        self.lines += lines
        for listener in tuple(self.listeners):
            listener(lines)


_drops = _DropCounter()
_outputs: list[QueuedOutput] = []


def queue_standard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` for the rest of the process, and wait for their readers when it ends.

    If both are the same file, they share a queue, so that their lines stay in order.
    """
    descriptors = [sys.stdout.fileno(), sys.stderr.fileno()]
    if os.path.sameopenfile(*descriptors):
        del descriptors[1]
    _outputs[:] = [QueuedOutput(descriptor, _report, _drops.add) for descriptor in descriptors]
    for output in _outputs:
        os.register_at_fork(before=output.acquire, after_in_parent=output.release, after_in_child=output.reset)
    os.register_at_fork(after_in_child=_drops.reset)
    sys.stdout, sys.stderr = (cast(TextIO, QueuedStream(output)) for output in (_outputs[0], _outputs[-1]))
    atexit.register(drain_standard_streams)


def drain_standard_streams() -> None:
    """Wait until the lines of this process are written, but not longer than DRAIN_LIMIT_S for each stream."""
    for output in _outputs:
        output.drain(DRAIN_LIMIT_S)


@contextmanager
def counting_dropped_lines(listener: OnDrop) -> Iterator[None]:
    """Call `listener` with the number of lines that this process has dropped so far, and with those it drops later."""
    _drops.listeners.append(listener)
    listener(_drops.lines)
    try:
        yield
    finally:
        _drops.listeners.remove(listener)


def _report(lines: int) -> None:
    log.error("log_lines_dropped", lines=lines)

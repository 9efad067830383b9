"""A bounded queue of lines that a thread writes, so that no caller waits for a slow destination."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

OnDrop = Callable[[int], object]

_RECHECK_S = 5.0  # a finalizer that runs in the thread can queue a line without waking it


class QueueLimits(Struct, frozen=True):
    """How much may wait, how much is written at once, and the pause after each batch, in which lines accumulate."""

    lines: int = 8192
    bytes: int = 1 << 20
    batch_lines: int = 8192
    batch_bytes: int = 1 << 16
    # A thread that woke up for every line would compete with the event loop for the interpreter's lock.
    pause_s: float = 0.05


class LineQueue(ABC):
    """A queue of lines, which a thread passes to `write_batch` in order.

    Once a line has been dropped, all further lines are dropped until the thread has written the queue. The thread then
    calls `report` with the number of dropped lines. `on_drop` is called with the number of lines at each drop, and also
    with the number that the destination has rejected; `report` does not include these.
    """

    def __init__(self, report: OnDrop, on_drop: OnDrop, limits: QueueLimits) -> None:
        self._report = report
        self._on_drop = on_drop
        self._limits = limits
        self.reset()

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the thread."""

    @abstractmethod
    def write_batch(self, lines: Sequence[bytes]) -> None:
        """Write lines, which end with line feeds, or call `count_dropped`. Called in the thread, where it may block."""

    def reset(self) -> None:
        """Start with an empty queue: a forked child has neither the thread nor the lines of its parent."""
        # The garbage collector may run in `put`, and a finalizer may log: the same thread then calls `put` again.
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._written = threading.Condition(self._lock)
        self._draining = threading.Event()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._idle = True
        self._has_thread = False

    def put(self, line: bytes) -> None:
        """Queue a line, or drop it; never blocks."""
        limits, size = self._limits, len(line)
        with self._lock:
            full = len(self._lines) >= limits.lines or self._bytes + size > limits.bytes
            dropped = full or self._dropped > 0
            if dropped:
                self._dropped += 1
            else:
                self._lines.append(line)
                self._bytes += size  # makes no call, during which the garbage collector could run `put` again
            self._idle = False
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._write_lines, name=self.name, daemon=True).start()
            self._filled.notify()
        if dropped:
            self._on_drop(1)

    def start_draining(self) -> None:
        """Write the waiting lines without pauses, until the next `drain` has returned."""
        self._draining.set()

    def drain(self, limit_s: float) -> bool:
        """Write without pauses, and wait at most `limit_s` seconds for all lines; return whether they are written."""
        self.start_draining()
        try:
            with self._lock:
                return self._written.wait_for(lambda: self._idle and not self._lines and not self._dropped, limit_s)
        finally:
            self._draining.clear()

    def acquire(self) -> None:
        """Hold the lock while the process forks, so that the child finds it free."""
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def count_dropped(self, lines: int) -> None:
        self._on_drop(lines)

    def pause(self, seconds: float) -> bool:
        """Wait in the thread. Return true, before the time is up, if the queue is being drained."""
        return self._draining.wait(seconds)

    def _write_lines(self) -> None:
        while True:
            batch, dropped = self._take()
            if batch:
                try:
                    self.write_batch(batch)
                except Exception:  # a defect must not end this output forever
                    self.count_dropped(len(batch))
                if not self._has_full_batch():
                    self.pause(self._limits.pause_s)
            else:
                self._report(dropped)

    def _take(self) -> tuple[Sequence[bytes], int]:
        """Wait for lines; return a batch of them or, if only dropped lines are left, no lines and their number."""
        with self._lock:
            while not self._lines and not self._dropped:
                self._idle = True
                self._written.notify_all()
                self._filled.wait(_RECHECK_S)
            batch: list[bytes] = []
            size = 0
            while self._lines and size < self._limits.batch_bytes and len(batch) < self._limits.batch_lines:
                batch.append(self._lines.popleft())
                size += len(batch[-1])
            self._bytes -= size
            dropped = 0
            if not batch:
                dropped, self._dropped = self._dropped, 0
            return batch, dropped

    def _has_full_batch(self) -> bool:
        with self._lock:
            return len(self._lines) >= self._limits.batch_lines or self._bytes >= self._limits.batch_bytes

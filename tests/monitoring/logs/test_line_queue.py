"""Reentrant log calls: the garbage collector may run within a log call, and a finalizer may log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

from monitoring.logs.line_queue import LineQueue, QueueLimits
from tests.support.polling import PATIENCE_S, wait_until

LIMITS = QueueLimits(lines=100, bytes=60, pause_s=0.001)


class Collected(LineQueue):
    """A queue whose thread collects lines while `may_write` is set."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.dropped = 0
        self.writing = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()
        super().__init__(lambda _: None, self.count, LIMITS)

    @property
    def name(self) -> str:
        return "collected"

    def count(self, lines: int) -> None:
        self.dropped += lines

    def write_batch(self, lines: Sequence[bytes]) -> None:
        self.writing.set()
        self.may_write.wait(PATIENCE_S)
        self.lines += lines


def interrupt(queue: Collected, position: int, act: Callable[[], None]) -> bool:
    """Put a line, and call `act` before the statement of `put` at `position`; return whether that one exists."""
    seen = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal seen
        if frame.f_code is LineQueue.put.__code__:
            if event == "line":
                seen += 1
                if seen == position:
                    sys.settrace(None)
                    act()
            return trace
        return None

    def put() -> None:
        sys.settrace(trace)
        queue.put(b"outer\n")
        sys.settrace(None)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), f"put waits for itself at statement {position}"
    return seen >= position


def test_a_finalizer_may_log_within_a_log_call() -> None:
    """Wherever a log call is interrupted by another in the same thread, both lines are written and counted once."""
    position = 1
    while True:
        queue = Collected()
        interrupted = [interrupt(queue, position, partial(queue.put, b"inner\n")) for _ in range(2)]
        assert queue.drain(PATIENCE_S)
        if not any(interrupted):
            break
        assert sorted(queue.lines) == [b"inner\n"] * sum(interrupted) + [b"outer\n"] * 2
        check_bytes(queue)
        position += 1
    assert position > 8


def check_bytes(queue: Collected) -> None:
    """Check that an empty queue accepts exactly as many bytes as its limit allows."""
    queue.may_write.clear()
    queue.writing.clear()
    queue.put(b"first\n")
    assert queue.writing.wait(PATIENCE_S)
    for _ in range(LIMITS.bytes // 6):
        queue.put(b"fills\n")
    assert queue.dropped == 0
    queue.put(b"\n")
    assert queue.dropped == 1
    queue.may_write.set()
    wait_until(lambda: queue.drain(0.1))

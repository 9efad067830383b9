"""The queues of this process's log. Dropped lines are counted, and the process waits for the queues before it ends."""

from __future__ import annotations

import atexit
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial

import structlog

from monitoring.logs.line_queue import LineQueue, OnDrop

DRAIN_LIMIT_S = 2.0  # how long an ending process waits for the readers of its log

log = structlog.get_logger("atalaya.logs")


class Output(StrEnum):
    """Where lines go; the label of the metric that counts dropped lines."""

    STANDARD = "standard"
    FILE = "file"
    HTTP = "http"


Listener = Callable[[Output, int], object]


class _DropCounter:
    """Counts the lines that this process has dropped, and notifies listeners."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lines: Counter[Output] = Counter()
        self.listeners: list[Listener] = []

    def add(self, output: Output, lines: int) -> None:
        self.lines[output] += lines
        for listener in tuple(self.listeners):
            listener(output, lines)


class _DrainLimit:
    """The monotonic time after which the process no longer waits for the queues."""

    end_at = math.inf


_drops = _DropCounter()
_queues: list[LineQueue] = []


def count_drops(output: Output) -> OnDrop:
    """Return the `on_drop` of a queue: it counts the lines for the listeners."""
    return partial(_drops.add, output)


def report_drops(output: Output) -> OnDrop:
    """Return the `report` of a queue: it logs the number of lines."""
    return lambda lines: log.error("log_lines_dropped", output=output, lines=lines)


def register_queue(queue: LineQueue) -> None:
    """Make the process wait for the queue before it ends, and forked children start with an empty queue."""
    if not _queues:
        os.register_at_fork(after_in_child=_drops.reset)
        atexit.register(drain_logs)
    _queues.append(queue)
    os.register_at_fork(before=queue.acquire, after_in_parent=queue.release, after_in_child=queue.reset)


def drain_logs() -> None:
    """Wait until the lines of this process are written, but not longer than DRAIN_LIMIT_S for all queues together."""
    deadline = min(time.monotonic() + DRAIN_LIMIT_S, _DrainLimit.end_at)
    for queue in _queues:
        queue.start_draining()
    for queue in _queues:
        queue.drain(max(0.0, deadline - time.monotonic()))


def limit_draining(end_at: float) -> None:
    """Limit the wait of `drain_logs` to this monotonic time, by which this process must end."""
    _DrainLimit.end_at = end_at


@contextmanager
def counting_dropped_lines(listener: Listener) -> Iterator[None]:
    """Call `listener` with the number of lines that this process has dropped so far, and with those it drops later."""
    _drops.listeners.append(listener)
    for output in Output:
        listener(output, _drops.lines[output])
    try:
        yield
    finally:
        _drops.listeners.remove(listener)

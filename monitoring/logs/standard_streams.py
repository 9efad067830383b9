"""Standard output and standard error that never block the process: threads write what it prints.

If nothing reads a pipe, it fills up, and further writes to it block. So lines wait in a bounded queue for the thread
that writes them. While the queue is full, new lines are dropped and counted.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import TextIO, cast

from monitoring.logs.line_queue import LineQueue, OnDrop, QueueLimits
from monitoring.logs.outputs import Output, count_drops, register_queue, report_drops


class QueuedOutput(LineQueue):
    """A queue whose thread writes the lines to `descriptor`. Lines that it cannot write are dropped and counted."""

    def __init__(self, descriptor: int, report: OnDrop, on_drop: OnDrop, limits: QueueLimits | None = None) -> None:
        self.descriptor = descriptor
        super().__init__(report, on_drop, limits or QueueLimits())

    @property
    def name(self) -> str:
        return f"output-{self.descriptor}"

    def write_batch(self, lines: Sequence[bytes]) -> None:
        rest = memoryview(b"".join(lines))
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:  # another process has made the shared pipe non-blocking
                select.select([], [self.descriptor], [])
            except OSError:
                self.count_dropped(len(lines))
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
        """Do nothing, because flushing must not block; see `drain_logs`."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._output.descriptor)

    def fileno(self) -> int:
        return self._output.descriptor


def queue_standard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr`, and make the process wait for queued lines before it ends.

    If both are the same file, they share a queue, so that their lines stay in order.
    """
    descriptors = [sys.stdout.fileno(), sys.stderr.fileno()]
    if os.path.sameopenfile(*descriptors):
        del descriptors[1]
    report, on_drop = report_drops(Output.STANDARD), count_drops(Output.STANDARD)
    outputs = [QueuedOutput(descriptor, report, on_drop) for descriptor in descriptors]
    for output in outputs:
        register_queue(output)
    sys.stdout, sys.stderr = (cast(TextIO, QueuedStream(output)) for output in (outputs[0], outputs[-1]))

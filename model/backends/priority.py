"""The scheduling priority of threads that infer, below that of the event loop."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

# The event loop's thread runs first (0), so that it reads and rejects requests while all cores infer. Password hashing
# runs last (10).
WORKER_NICENESS = 3


def lower_priority(niceness: int = WORKER_NICENESS) -> None:
    """Lower the priority of this thread, and of the threads it starts, below that of the event loop.

    A process that was started at a lower priority, for example with `nice`, keeps that for all threads.
    """
    if sys.platform == "linux":  # the only system with a niceness per thread
        with suppress(OSError):  # not permitted: all threads keep the same priority
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))

"""A thread that runs work only while live requests leave a core idle."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from model.backends.priority import lower_priority

# The worker threads have a higher priority, so that a request that arrives during the work runs first.
MAX_NICENESS = 19
_POLL_S = 0.005


class _Work(NamedTuple):
    run: Callable[[], None]
    drop: Callable[[], None]
    offered_at: float


class SpareThread:
    """Starts work only while `is_spare()`, and drops work that has waited for longer than `patience_s`.

    At most `backlog` pieces of work wait; more are dropped immediately. `run` and `drop` must not raise.
    """

    def __init__(
        self,
        is_spare: Callable[[], bool],
        *,
        backlog: int = 8,
        patience_s: float = 1.0,
        niceness: int = MAX_NICENESS,
    ) -> None:
        self._niceness = niceness
        self._is_spare = is_spare
        self._backlog = backlog
        self._patience_s = patience_s
        self._waiting: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._running_since: float | None = None
        # A daemon thread, so that a stuck one does not keep the process from exiting.
        threading.Thread(target=self._work, name="canary", daemon=True).start()

    @property
    def busy_s(self) -> float:
        """The seconds since the current work started; 0 if the thread is idle."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def offer(self, run: Callable[[], None], drop: Callable[[], None]) -> None:
        """Queue the work: either `run` or `drop` will be called."""
        with self._changed:
            accepted = not self._closing.is_set() and len(self._waiting) < self._backlog
            if accepted:
                self._waiting.append(_Work(run, drop, time.monotonic()))
                self._changed.notify()
        if not accepted:
            drop()

    def close(self) -> None:
        """Drop the waiting work, and end the thread after the current work, without waiting for it."""
        self._closing.set()
        with self._changed:
            dropped = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for work in dropped:
            work.drop()

    def _work(self) -> None:
        lower_priority(self._niceness)
        while (work := self._take()) is not None:
            if self._wait_for_spare_capacity(work):
                self._running_since = time.monotonic()
                try:
                    work.run()
                finally:
                    self._running_since = None
            else:
                work.drop()

    def _take(self) -> _Work | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            return self._waiting.popleft() if self._waiting else None

    def _wait_for_spare_capacity(self, work: _Work) -> bool:
        while not self._is_spare():
            if time.monotonic() - work.offered_at > self._patience_s or self._closing.wait(_POLL_S):
                return False
        return not self._closing.is_set()

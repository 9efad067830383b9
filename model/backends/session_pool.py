"""The ONNX Runtime sessions of a model, of which each prediction uses one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from queue import Empty, LifoQueue
from typing import Any

_one_core: ContextVar[bool] = ContextVar("one_core", default=False)


@contextmanager
def using_one_core() -> Iterator[None]:
    """Make predictions of this thread in the block use one core, so that their processor times can be compared."""
    token = _one_core.set(True)
    try:
        yield
    finally:
        _one_core.reset(token)


class SessionPool:
    """Lends each prediction a session of its own. Thread-safe.

    A prediction on one of `sessions` uses one core. A prediction on `parallel` uses two, and takes less time, but more
    processor time: it is for a prediction that starts while no other is running, so that a core would be idle.
    """

    def __init__(self, sessions: Sequence[Any], parallel: Any | None = None) -> None:
        # Last in, first out: the session that was used last has the most memory in the cache.
        self._free: LifoQueue[Any] = LifoQueue()
        for session in sessions:
            self._free.put(session)
        self._lock = threading.Lock()
        self._parallel = parallel
        self._running = 0

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """Lend a session for one prediction. Waits for one if all are in use."""
        with self._lock:
            self._running += 1
            parallel = self._take_parallel() if self._running == 1 and not _one_core.get() else None
        session = self._free.get() if parallel is None else parallel
        try:
            yield session
        finally:
            with self._lock:
                self._running -= 1
                if parallel is not None:
                    self._parallel = parallel
            if parallel is None:
                self._free.put(session)

    @contextmanager
    def borrow_free(self) -> Iterator[Sequence[Any]]:
        """Lend all sessions that are not in use."""
        with self._lock:
            parallel = self._take_parallel()
        free = self._take_free()
        try:
            yield free if parallel is None else [*free, parallel]
        finally:
            for session in reversed(free):
                self._free.put(session)
            with self._lock:
                if parallel is not None:
                    self._parallel = parallel

    def close(self) -> None:
        """Forget the sessions, which frees their memory. No prediction may follow. A second call does nothing."""
        self._take_free()
        with self._lock:
            self._parallel = None

    def _take_parallel(self) -> Any | None:
        parallel, self._parallel = self._parallel, None
        return parallel

    def _take_free(self) -> list[Any]:
        free = []
        while True:
            try:
                free.append(self._free.get_nowait())
            except Empty:
                return free

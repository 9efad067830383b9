"""The ONNX Runtime sessions of a model, of which each prediction uses one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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
        self._single = list(sessions)
        self._parallel = [] if parallel is None else [parallel]
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """Lend a session for one prediction. Waits for one if all are in use. Raises RuntimeError after `close`."""
        session, free = self._take()
        try:
            yield session
        finally:
            with self._changed:
                self._running -= 1
                if not self._closed:
                    free.append(session)
                    self._changed.notify()

    @contextmanager
    def borrow_free(self) -> Iterator[Sequence[Any]]:
        """Lend all sessions that are not in use."""
        with self._changed:
            single, self._single[:] = [*self._single], []
            parallel, self._parallel[:] = [*self._parallel], []
        try:
            yield [*reversed(single), *parallel]
        finally:
            with self._changed:
                if not self._closed:
                    self._single[:0] = single
                    self._parallel[:0] = parallel
                    self._changed.notify_all()

    def close(self) -> None:
        """Forget the sessions, which frees their memory; those in use are freed when their predictions end."""
        with self._changed:
            self._closed = True
            self._single.clear()
            self._parallel.clear()
            self._changed.notify_all()

    def _take(self) -> tuple[Any, list[Any]]:
        """Return a session, and the list to which it belongs."""
        with self._changed:
            is_alone = not self._running and not _one_core.get()
            free = self._parallel if is_alone and self._parallel else self._single
            self._changed.wait_for(lambda: free or self._closed)
            if self._closed:
                raise RuntimeError("The model is closed.")
            self._running += 1
            return free.pop(), free

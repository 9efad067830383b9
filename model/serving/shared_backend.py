"""A back end that several requests use at once, and that may be closed when the last of them ends."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Self

from model.backends.base import Backend


class SharedBackend:
    """Counts the uses of `backend`; each `with` block is one use. Thread-safe."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._lock = threading.Lock()
        self._uses = 0
        self._unused: Future[Backend] | None = None

    def __enter__(self) -> Self:
        with self._lock:
            self._uses += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._uses -= 1
            unused = self._unused if not self._uses else None
        if unused is not None:
            unused.set_result(self.backend)

    def hold_until_done(self, work: Future[Any]) -> None:
        """Add a use, which ends when `work` is done."""
        self.__enter__()
        work.add_done_callback(self.__exit__)

    def retire(self) -> Future[Backend]:
        """Return a future of the back end, done when its last use ends. No new use may start after this call."""
        unused: Future[Backend] = Future()
        with self._lock:
            self._unused = unused
            idle = not self._uses
        if idle:
            unused.set_result(self.backend)
        return unused

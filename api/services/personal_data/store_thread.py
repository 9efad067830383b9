"""Runs slow operations of the image store in a thread of their own, so that they do not occupy shared threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from storage.images.archive import ImageArchive

T = TypeVar("T")


class StoreThread:
    """One thread that runs the operations in order, however long the store takes to respond.

    Not a ThreadPoolExecutor: Python waits for the threads of one before the process exits.
    """

    def __init__(self, archive: ImageArchive) -> None:
        self.archive = archive
        self._operations: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._waiting: set[str] = set()

    async def run(self, operation: Callable[[], T]) -> T:
        """Run the operation in the thread. Raises what it raises, and RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("The thread of the image store is closed.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_all, name="image-store", daemon=True)
            self._thread.start()
        result = Future[T]()
        self._operations.put((result, operation))
        return await asyncio.wrap_future(result)

    async def erase(self, owner: str) -> int | None:
        """Erase an owner's images. Returns their number, or None if an erasure for this owner is waiting already.

        Raises ImageStoreUnavailable.
        """
        if owner in self._waiting:
            return None
        self._waiting.add(owner)
        try:
            return await self.run(partial(self._erase_now, owner))
        except asyncio.CancelledError:
            self._waiting.discard(owner)  # the thread skips a cancelled operation
            raise

    def close(self) -> None:
        """Cancel the waiting operations. Neither this nor the exit of the process waits for the running one."""
        self._closed = True
        with suppress(Empty):
            while (waiting := self._operations.get_nowait()) is not None:
                waiting[0].cancel()
        self._operations.put(None)

    def _run_all(self) -> None:
        while (waiting := self._operations.get()) is not None:
            result, operation = waiting
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(operation())
                except BaseException as error:  # the caller gets every error; the thread continues
                    result.set_exception(error)
            del waiting, result, operation  # keep no references until the next operation

    def _erase_now(self, owner: str) -> int:
        self._waiting.discard(owner)  # before listing: images added after it need another erasure
        return self.archive.erase(owner)

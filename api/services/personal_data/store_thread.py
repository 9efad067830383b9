"""Runs slow operations of the image store in a thread of their own, so that they do not occupy shared threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from storage.images.archive import ImageArchive

T = TypeVar("T")


class StoreThread:
    """One thread that runs the operations in order, however long the store takes to respond."""

    def __init__(self, archive: ImageArchive) -> None:
        self.archive = archive
        self._thread = ThreadPoolExecutor(1, "image-store")
        self._waiting: set[str] = set()

    async def run(self, operation: Callable[[], T]) -> T:
        """Run the operation in the thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, operation)

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
        """Cancel the waiting operations, and do not wait for the running one."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _erase_now(self, owner: str) -> int:
        self._waiting.discard(owner)  # before listing: images added after it need another erasure
        return self.archive.erase(owner)

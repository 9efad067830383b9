"""Which users allow their images to be kept, known to every process within a second of a change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from auth.changes import ChangeFeed
from storage.errors import DatabaseUnavailable

_PAUSE_S = 0.5
_USER = "user:"

log = structlog.get_logger("atalaya.images")


class ImageConsents:
    """`list_allowed` reads the ids of the users who allow it. Until they are read, nobody does."""

    def __init__(self, list_allowed: Callable[[], Awaitable[Collection[str]]]) -> None:
        self._list_allowed = list_allowed
        self._allowed: set[str] = set()
        self._outdated = asyncio.Event()
        self._outdated.set()
        self._failing = False

    def allows(self, owner: str) -> bool:
        """Whether the owner's images may be kept now; from any thread."""
        return owner in self._allowed

    def notice_change(self, target: str) -> None:
        """Assume that a changed user has withdrawn, until the users are read again."""
        if target.startswith(_USER):
            self._allowed.discard(target.removeprefix(_USER))
            self._outdated.set()

    def subscribe_to(self, changes: ChangeFeed) -> None:
        """Notice changes of users from now on, and read the users again: some may have changed before."""
        changes.subscribe(self.notice_change)
        self._outdated.set()

    async def follow(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Re-read the users after each change, until cancelled. `sleep` is extended while the gateway is idle."""
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            try:
                allowed = set(await self._list_allowed())
            except DatabaseUnavailable:
                self._outdated.set()
                self._report_failure()
            else:
                self._failing = False
                if not self._outdated.is_set():  # otherwise somebody may have withdrawn meanwhile
                    self._allowed = allowed
            await sleep(_PAUSE_S)

    def _report_failure(self) -> None:
        """Log the first of several failures."""
        if not self._failing:
            log.warning("image_consents_not_read", policy="keep no images of users who have changed")
        self._failing = True

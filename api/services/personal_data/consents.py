"""Tracks which users allow their images to be kept. Each process sees a change within a second."""

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
    """`list_allowed` reads the ids of the users who consent. Until the first read, no user is assumed to consent."""

    def __init__(self, list_allowed: Callable[[], Awaitable[Collection[str]]]) -> None:
        self._list_allowed = list_allowed
        self._allowed: set[str] = set()
        self._outdated = asyncio.Event()
        self._outdated.set()
        self._failing = False

    def allows(self, owner: str) -> bool:
        """Return whether the owner's images may be kept now. Thread-safe."""
        return owner in self._allowed

    def notice_change(self, target: str) -> None:
        """Assume that a changed user has withdrawn consent, until the users are read again."""
        if target.startswith(_USER):
            self._allowed.discard(target.removeprefix(_USER))
            self._outdated.set()

    def subscribe_to(self, changes: ChangeFeed) -> None:
        """Follow changes of users from now on, and read all users again, because some may have changed before."""
        changes.subscribe(self.notice_change)
        changes.subscribe_to_gaps(self._forget_all)
        self._outdated.set()

    def _forget_all(self) -> None:
        """Assume that every user has withdrawn consent, until the users are read again."""
        self._allowed.clear()
        self._outdated.set()

    async def follow(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Read the users again after each change, until cancelled. `sleep` may last longer if the gateway is idle."""
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            try:
                allowed = set(await self._list_allowed())
            except Exception as error:  # after any error, the next attempt may succeed
                self._outdated.set()
                self._report_failure(error)
            else:
                self._failing = False
                if not self._outdated.is_set():  # otherwise a user may have withdrawn consent during the read
                    self._allowed = allowed
            await sleep(_PAUSE_S)

    def _report_failure(self, error: Exception) -> None:
        """Log only the first of consecutive failures."""
        if not self._failing:
            unexpected = None if isinstance(error, DatabaseUnavailable) else error
            policy = "images of users whose permission has changed are not kept"
            log.warning("image_consents_not_read", policy=policy, exc_info=unexpected)
        self._failing = True

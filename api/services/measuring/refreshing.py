"""Repeats work in the background, and continues after errors of the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from api.services.background.activity import Activity
from monitoring.errors import LedgerUnavailable


class Refreshing:
    """Repeats `refresh`, which may raise LedgerUnavailable. `name` says what it refreshes."""

    def __init__(self, name: str, refresh: Callable[[], Awaitable[None]], interval_s: float) -> None:
        self._name = name
        self._refresh = refresh
        self._interval_s = interval_s
        self._is_failing = False
        self._log = structlog.get_logger(f"atalaya.{name}")

    async def run(self, activity: Activity, first_s: float) -> None:
        """Refresh `first_s` seconds from now and at each interval, until cancelled."""
        pause_s = first_s
        while True:
            await activity.sleep(pause_s)
            pause_s = self._interval_s
            await self.refresh_once()

    async def refresh_once(self) -> None:
        """Refresh, and log a failure. While the database is unavailable, only the first failure is logged."""
        try:
            await self._refresh()
        except LedgerUnavailable as error:
            if not self._is_failing:
                self._log.warning(f"{self._name}_not_refreshed", reason=_find_cause(error))
            self._is_failing = True
        except Exception:  # any error, such as from altered rows: predictions do not depend on this work
            self._log.exception(f"{self._name}_not_refreshed", policy="the gateway tries again later")
        else:
            if self._is_failing:
                self._log.info(f"{self._name}_refreshed")
            self._is_failing = False


def _find_cause(error: BaseException) -> str:
    """Return the class of the root cause, an error of the database driver, which distinguishes a bug from an outage."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__

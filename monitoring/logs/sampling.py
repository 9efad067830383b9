"""Limits the log lines of rejected requests: beyond a rate, only their number is logged.

An attacker could otherwise fill a disk with rejections, or make a platform drop other lines: Railway drops lines beyond
500 a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextvars import Context

import structlog
from structlog.typing import EventDict, WrappedLogger

REFUSALS_PER_S = 100  # lines of a gateway, over all of its processes
REPORT_AFTER_S = 1.0
_MAX_KINDS = 10  # in one report

CallLater = Callable[[float, Callable[[], object]], object]
_Kind = tuple[object, object, object]

log = structlog.get_logger("atalaya.access")


class RefusalSampler:
    """A structlog processor that passes at most `limit` lines of rejected requests per second.

    It drops and counts the others. A second after the first dropped line it logs `refusals_not_logged` with their
    number and the most frequent kinds.
    """

    def __init__(
        self, limit: int, call_later: CallLater | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._call_later = call_later or _call_later
        self._clock = clock
        self._second_began = -1.0
        self._passed = 0
        self._dropped: Counter[_Kind] = Counter()

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Return the event. Raises DropEvent for a rejected request beyond the limit."""
        if _is_refusal(event) and not self._admit():
            if not self._dropped:
                self._call_later(REPORT_AFTER_S, self._report)
            kind = (event.get("http.route"), event.get("http.response.status_code"), event.get("code"))
            self._dropped[kind] += 1
            raise structlog.DropEvent
        return event

    def _admit(self) -> bool:
        now = self._clock()
        if now - self._second_began >= 1:
            self._second_began, self._passed = now, 0
        self._passed += 1
        return self._passed <= self._limit

    def _report(self) -> None:
        dropped, self._dropped = self._dropped, Counter()
        most = [
            {"http.route": route, "http.response.status_code": status, "error.type": code, "count": count}
            for (route, status, code), count in dropped.most_common(_MAX_KINDS)
        ]
        log.warning("refusals_not_logged", count=dropped.total(), most=most)


def _is_refusal(event: EventDict) -> bool:
    status = event.get("http.response.status_code", 0)
    return (isinstance(status, int) and status >= 400) or event.get("event") == "connection_refused"


def _call_later(seconds: float, callback: Callable[[], object]) -> None:
    """Call back in the event loop, without the context of the current request."""
    asyncio.get_running_loop().call_later(seconds, callback, context=Context())

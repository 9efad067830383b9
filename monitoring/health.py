"""Whether the dependencies of the gateway are available."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

# Returns a state in one word, or None for "ok"; raises when the dependency is unavailable.
Check = Callable[[], Awaitable[str | None]]


class Readiness(Struct, frozen=True):
    """`checks` maps each dependency to its state, or to the class name of its error: messages may contain secrets."""

    ready: bool
    checks: Mapping[str, str]


async def check_readiness(checks: Mapping[str, Check], timeout_s: float = 1.0) -> Readiness:
    """Run all checks concurrently. A check that raises, or takes longer than `timeout_s` seconds, has failed."""
    results = await asyncio.gather(*(_run_check(check, timeout_s) for check in checks.values()))
    return Readiness(
        ready=all(ready for ready, _ in results),
        checks={name: state for name, (_, state) in zip(checks, results, strict=True)},
    )


class Health:
    """Reuses each result for all requests within a short time, because anyone may send requests at any rate."""

    def __init__(
        self, checks: Mapping[str, Check], max_age_s: float = 0.25, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checks = checks
        self._max_age_s = max_age_s
        self._clock = clock
        self._running: asyncio.Task[Readiness] | None = None
        self._finished_at = 0.0

    async def check(self) -> Readiness:
        """Return a result that is at most `max_age_s` seconds old."""
        if self._running is None or (self._running.done() and self._clock() - self._finished_at > self._max_age_s):
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._running)

    async def _run(self) -> Readiness:
        result = await check_readiness(self._checks)
        self._finished_at = self._clock()
        return result


async def _run_check(check: Check, timeout_s: float) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(timeout_s):
            return True, await check() or "ok"
    except Exception as error:
        return False, type(error).__name__

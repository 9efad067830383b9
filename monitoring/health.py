"""Whether the things the gateway depends on answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

# Answers a word on how it is, None for "ok", or raises.
Check = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Readiness:
    """`checks` maps each dependency to its word, or to the class name of its error; messages may hold secrets."""

    ready: bool
    checks: Mapping[str, str]


async def readiness(checks: Mapping[str, Check], timeout_s: float = 1.0) -> Readiness:
    """Run all checks at once. One that raises, or takes longer than `timeout_s` seconds, is not ready."""
    outcomes = await asyncio.gather(*(_outcome(check, timeout_s) for check in checks.values()))
    return Readiness(
        ready=all(ready for ready, _ in outcomes),
        checks={name: word for name, (_, word) in zip(checks, outcomes, strict=True)},
    )


class Health:
    """Whether the checks hold, found out once for all who ask at about the same time: anybody may, and often."""

    def __init__(self, checks: Mapping[str, Check], fresh_s: float = 0.25) -> None:
        self._checks = checks
        self._fresh_s = fresh_s
        self._asking: asyncio.Task[Readiness] | None = None
        self._answered_at = 0.0

    async def ask(self) -> Readiness:
        """An answer that is at most `fresh_s` seconds old."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._answered_at > self._fresh_s):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Readiness:
        result = await readiness(self._checks)
        self._answered_at = time.monotonic()
        return result


async def _outcome(check: Check, timeout_s: float) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(timeout_s):
            return True, await check() or "ok"
    except Exception as error:
        return False, type(error).__name__

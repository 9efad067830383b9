"""Whether the things the gateway depends on answer."""

from __future__ import annotations

import asyncio
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


async def _outcome(check: Check, timeout_s: float) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(timeout_s):
            return True, await check() or "ok"
    except Exception as error:
        return False, type(error).__name__

"""Wait for a condition by polling, instead of sleeping for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# A ceiling for a condition that never becomes true, far above what a slow and busy machine needs.
PATIENCE_S = 120.0
_INTERVAL_S = 0.02


def wait_until(condition: Callable[[], object], within_s: float = PATIENCE_S, message: object = "") -> float:
    """Poll until the condition is true and return the seconds that took. Raises AssertionError after `within_s`.

    `message` is the text of the error; a callable is called for it.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within_s:
            raise AssertionError(_describe(message, within_s))
        time.sleep(_INTERVAL_S)
    return time.monotonic() - started


async def wait_until_async(
    condition: Callable[[], object], within_s: float = PATIENCE_S, message: object = ""
) -> float:
    """`wait_until` for a condition that other tasks of this event loop make true."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within_s:
            raise AssertionError(_describe(message, within_s))
        await asyncio.sleep(_INTERVAL_S)
    return time.monotonic() - started


def _describe(message: object, within_s: float) -> str:
    detail = message() if callable(message) else message
    return f"not true within {within_s:.0f} s: {detail}"

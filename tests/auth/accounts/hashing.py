"""What tests of passwords ask: whether a password matches a hash, and how much processor time work takes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from auth.accounts.passwords import PasswordHasher

_ROUNDS = 5


async def matches(hasher: PasswordHasher, password: str, password_hash: str | None) -> bool:
    return (await hasher.verify(password, password_hash)).matches


async def measure_costs(*jobs: Callable[[], Awaitable[object]]) -> list[float]:
    """Return the processor time in seconds that each job takes: the least of some rounds.

    A busy machine makes work take longer than that, and never less.
    """
    rounds = [[await _measure(job) for job in jobs] for _ in range(_ROUNDS)]
    return [min(column) for column in zip(*rounds, strict=True)]


async def _measure(job: Callable[[], Awaitable[object]]) -> float:
    started = time.process_time()
    await job()
    return time.process_time() - started

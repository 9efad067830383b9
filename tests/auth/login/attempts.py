"""A clock that tests move, and helpers that make failed and successful login attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from auth.accounts.store import User
from auth.errors import LoginThrottled
from auth.login.throttle import LoginThrottle

HOME, OFFICE, AWAY = "192.0.2.1", "192.0.2.2", "198.51.100.7"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


async def fail(throttle: LoginThrottle, name: str, address: str, times: int = 1) -> None:
    for _ in range(times):
        await throttle.record_failure(await throttle.start(name, address))


async def succeed(throttle: LoginThrottle, user: User, address: str) -> None:
    await throttle.record_success(await throttle.start(user.name, address), user.id)


async def get_wait_s(throttle: LoginThrottle, name: str, address: str) -> int:
    """Return how many seconds a right password would have to wait, without counting an attempt."""
    try:
        attempt = await throttle.start(name, address)
    except LoginThrottled as error:
        return error.retry_after_s
    await throttle.withdraw(attempt)
    return attempt.early_by_s if attempt.refused else 0


async def guess(throttle: LoginThrottle, name: str, address: str) -> int:
    """Make a wrong guess, and return its Retry-After in seconds, or 0 if it was not throttled."""
    try:
        await fail(throttle, name, address)
    except LoginThrottled as error:
        return error.retry_after_s
    return 0

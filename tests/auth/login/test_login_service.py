"""Logging in: the limits on concurrent attempts, and rejecting attempts before hashing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher, Verification
from auth.accounts.service import AccountService
from auth.accounts.store import UserStore
from auth.errors import BadCredentials, HashingBusy, LoginThrottled
from auth.login.service import MAX_CONCURRENT, MAX_WAITING, LoginService
from auth.login.throttle import Attempt, LoginThrottle
from auth.login.totp import OneTimeCodes
from auth.principal import Role
from auth.tables import login_failures, users
from storage.errors import DatabaseUnavailable
from storage.transactions import reading, writing
from tests.support.polling import PATIENCE_S

ADDRESS = "198.51.100.7"
GOOD, WRONG = "walnut ferry quiet lamp", "another ferry, loud lamp"


class SlowHasher(PasswordHasher):
    """A hasher that waits for the event `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        await self.go.wait()
        return await super().verify(password, password_hash)


async def test_too_many_concurrent_log_ins_are_rejected_at_once(engine: AsyncEngine) -> None:
    """Log-ins beyond the limit per process are rejected before hashing; the others complete, and free the capacity."""
    with closing(SlowHasher()) as hasher:
        accounts = AccountService(UserStore(engine), hasher)
        logins = LoginService(accounts, LoginThrottle(engine), OneTimeCodes(engine, None))
        attempts = [logins.log_in(f"user{n}", WRONG, "", f"10.0.0.{n}") for n in range(MAX_CONCURRENT + MAX_WAITING)]
        running = [asyncio.create_task(attempt) for attempt in attempts]
        await asyncio.sleep(0)
        with pytest.raises(HashingBusy):
            async with asyncio.timeout(PATIENCE_S):
                await logins.log_in("ada", GOOD, "", "10.0.0.1")
        hasher.go.set()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {BadCredentials}
        with pytest.raises(BadCredentials):
            await logins.log_in("ada", GOOD, "", ADDRESS)


class CountingHasher(PasswordHasher):
    """A hasher that counts verifications."""

    verifications = 0

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        self.verifications += 1
        return await super().verify(password, password_hash)


async def test_early_attempts_are_rejected_before_hashing(engine: AsyncEngine) -> None:
    """An attempt that comes too early is rejected before hashing; a later success resets the counters."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    with closing(CountingHasher()) as hasher:
        accounts = AccountService(UserStore(engine), hasher)
        await accounts.add("ada", Role.CLIENT, GOOD)
        logins = LoginService(accounts, LoginThrottle(engine, lambda: now), OneTimeCodes(engine, None))
        for _ in range(3):
            with pytest.raises(BadCredentials):
                await logins.log_in("ada", WRONG, "", ADDRESS)
        with pytest.raises(LoginThrottled):
            await logins.log_in("ada", GOOD, "", ADDRESS)
        assert hasher.verifications == 3
        now += timedelta(seconds=1)
        assert (await logins.log_in("ada", GOOD, "", ADDRESS)).name == "ada"
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(login_failures))).scalar_one() == 0


class PausingHasher(PasswordHasher):
    """A hasher that calls `pause` after each verification."""

    pause: Callable[[], Awaitable[object]]

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        verification = await super().verify(password, password_hash)
        await self.pause()
        return verification


async def test_a_cancelled_log_in_is_not_counted_as_failed(engine: AsyncEngine) -> None:
    """A log-in that is cancelled after three failures does not add another failure."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    with closing(PausingHasher()) as hasher:
        accounts, paused = AccountService(UserStore(engine), hasher), asyncio.Event()

        async def wait() -> None:
            paused.set()
            await asyncio.Event().wait()

        hasher.pause = partial(asyncio.sleep, 0)
        await accounts.add("ada", Role.CLIENT, GOOD)
        logins = LoginService(accounts, LoginThrottle(engine, lambda: now), OneTimeCodes(engine, None))
        for _ in range(3):
            with pytest.raises(BadCredentials):
                await logins.log_in("ada", WRONG, "", ADDRESS)
        now += timedelta(seconds=5)
        hasher.pause = wait
        attempt = asyncio.create_task(logins.log_in("ada", GOOD, "", ADDRESS))
        async with asyncio.timeout(PATIENCE_S):
            await paused.wait()
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
    async with reading(engine) as connection:
        assert set((await connection.execute(select(login_failures.c.failures))).scalars()) == {3}


class FailingThrottle(LoginThrottle):
    """Cannot store successes, as while the database is busy."""

    async def record_success(self, attempt: Attempt, user_id: str | None = None) -> None:
        raise DatabaseUnavailable("The database is busy.")


async def test_a_log_in_that_cannot_be_stored_is_not_counted_as_failed(engine: AsyncEngine) -> None:
    """A right password after three failures does not add another failure if the success cannot be stored."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    with closing(PasswordHasher()) as hasher:
        accounts = AccountService(UserStore(engine), hasher)
        await accounts.add("ada", Role.CLIENT, GOOD)
        logins = LoginService(accounts, FailingThrottle(engine, lambda: now), OneTimeCodes(engine, None))
        for _ in range(3):
            with pytest.raises(BadCredentials):
                await logins.log_in("ada", WRONG, "", ADDRESS)
        now += timedelta(seconds=5)
        with pytest.raises(DatabaseUnavailable):
            await logins.log_in("ada", GOOD, "", ADDRESS)
    async with reading(engine) as connection:
        assert set((await connection.execute(select(login_failures.c.failures))).scalars()) == {3}


async def test_a_user_who_is_deleted_during_the_log_in_has_bad_credentials(engine: AsyncEngine) -> None:
    """If the user is deleted while the password is hashed, the log-in fails, and the counters do not change."""
    with closing(PausingHasher()) as hasher:
        accounts = AccountService(UserStore(engine), hasher)
        ada = await accounts.add("ada", Role.CLIENT, GOOD)

        async def remove() -> None:
            async with writing(engine) as connection:
                await connection.execute(delete(users).where(users.c.id == ada.id))

        logins = LoginService(accounts, LoginThrottle(engine), OneTimeCodes(engine, None))
        hasher.pause = partial(asyncio.sleep, 0)
        with pytest.raises(BadCredentials):
            await logins.log_in("ada", WRONG, "", ADDRESS)
        hasher.pause = remove
        with pytest.raises(BadCredentials):
            await logins.log_in("ada", GOOD, "", ADDRESS)
    async with reading(engine) as connection:
        assert set((await connection.execute(select(login_failures.c.failures))).scalars()) == {1}

"""Guessing is slowed for an account and for an address, in all processes together."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import User, UserStore
from auth.errors import BadCredentials, HashingBusy, TooManyGuesses
from auth.login.service import MAX_CONCURRENT, LoginService
from auth.login.throttle import NETWORK_KNOWN_FOR, RESET_AFTER, LoginThrottle, compute_wait_s
from auth.login.totp import OneTimeCodes
from auth.principal import Role
from auth.tables import known_addresses, login_failures
from storage.engine import open_engine

HOME, OFFICE, AWAY = "192.0.2.1", "192.0.2.2", "198.51.100.7"
GOOD, WRONG = "walnut ferry quiet lamp", "another ferry, loud lamp"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(engine: AsyncEngine, clock: Clock) -> LoginThrottle:
    return LoginThrottle(engine, clock)


@pytest.fixture
async def ada(engine: AsyncEngine) -> User:
    return await UserStore(engine).add("ada", Role.CLIENT, "hash")


async def fail(throttle: LoginThrottle, name: str, address: str, times: int = 1) -> None:
    for _ in range(times):
        await throttle.record_failure(await throttle.start(name, address))


async def succeed(throttle: LoginThrottle, user: User, address: str) -> None:
    await throttle.record_success(await throttle.start(user.name, address), user.id)


async def waits(throttle: LoginThrottle, name: str, address: str) -> int:
    """Seconds that the next try would have to wait; nothing is counted."""
    try:
        await throttle.withdraw(await throttle.start(name, address))
    except TooManyGuesses as slowed:
        return slowed.retry_after_s
    return 0


async def rows(engine: AsyncEngine, table: Any) -> int:
    async with engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


def test_waits_double_up_to_a_minute() -> None:
    """Three failures are free; then the wait doubles from a second to a minute, and never grows over it."""
    assert [compute_wait_s(failures) for failures in range(11)] == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert compute_wait_s(10**9) == 60


async def test_an_account_is_slowed_from_everywhere(throttle: LoginThrottle, clock: Clock) -> None:
    """Failures from three addresses make the account wait at a fourth; other accounts there do not wait."""
    for number in range(3):
        await fail(throttle, "ada", f"192.0.2.{number}")
    assert await waits(throttle, "ada", AWAY) == 1
    assert await waits(throttle, "grace", AWAY) == 0
    clock.move(1)
    await fail(throttle, "ada", AWAY)
    assert await waits(throttle, "ada", AWAY) == 2


async def test_an_address_is_slowed_for_every_account(throttle: LoginThrottle) -> None:
    """One that tries a password on many accounts waits, whoever comes next; unknown names count alike."""
    for name in ("ada", "grace", "' OR 1=1"):
        await fail(throttle, name, AWAY)
    assert await waits(throttle, "edsger", AWAY) == 1
    assert await waits(throttle, "a\0b", AWAY) == 1
    assert await waits(throttle, "edsger", HOME) == 0


async def test_failures_are_forgotten(throttle: LoginThrottle, clock: Clock) -> None:
    """A quarter of an hour without a failure and the next ones are free again."""
    await fail(throttle, "ada", AWAY, 3)
    clock.move(RESET_AFTER.total_seconds() + 1)
    await fail(throttle, "ada", AWAY, 2)
    assert await waits(throttle, "ada", AWAY) == 0


async def test_refused_tries_cost_nothing(throttle: LoginThrottle, clock: Clock) -> None:
    """Knocking while one has to wait makes the wait no longer."""
    await fail(throttle, "ada", AWAY, 3)
    for _ in range(20):
        assert await waits(throttle, "ada", AWAY) == 1
    clock.move(1)
    assert await waits(throttle, "ada", AWAY) == 0


async def test_success_forgets(throttle: LoginThrottle, ada: User) -> None:
    """A log-in clears what failed for this account, here and elsewhere."""
    await fail(throttle, "ada", HOME, 2)
    await succeed(throttle, ada, HOME)
    await fail(throttle, "ada", HOME, 2)
    assert await waits(throttle, "ada", HOME) == 0


async def test_success_forgets_no_other_s_failures(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Who has an account cannot log in between guesses at others' to start afresh."""
    for name in ("grace", "edsger", "barbara"):
        await fail(throttle, name, AWAY)
    clock.move(1)
    await succeed(throttle, ada, AWAY)
    assert await waits(throttle, "tony", AWAY) > 0


async def test_nobody_locks_an_owner_out(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Where the owner has logged in, neither failures elsewhere nor others' failures there make the owner wait."""
    await succeed(throttle, ada, HOME)
    for _ in range(12):
        clock.move(61)
        await fail(throttle, "ada", AWAY)
        await fail(throttle, "grace", HOME)
    assert await waits(throttle, "ada", AWAY) == 60
    assert await waits(throttle, "ada", OFFICE) == 60
    assert await waits(throttle, "grace", OFFICE) == 60
    assert await waits(throttle, "ada", HOME) == 0


async def test_a_known_address_can_guess_no_faster(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Guesses at the owner's account from the owner's address are slowed by themselves, and slow the address."""
    await succeed(throttle, ada, HOME)
    await fail(throttle, "ada", HOME, 3)
    assert await waits(throttle, "ada", HOME) == 1
    assert await waits(throttle, "grace", HOME) == 1
    assert await waits(throttle, "ada", OFFICE) == 0
    clock.move(1)
    await fail(throttle, "ada", HOME)
    assert await waits(throttle, "ada", HOME) == 2


async def test_an_address_is_known_for_a_month(
    engine: AsyncEngine, throttle: LoginThrottle, ada: User, clock: Clock
) -> None:
    """An address where the owner has not logged in for thirty days is as any other, and is removed."""
    await succeed(throttle, ada, HOME)
    clock.move(NETWORK_KNOWN_FOR.total_seconds())
    await fail(throttle, "ada", AWAY, 3)
    assert await waits(throttle, "ada", HOME) == 1
    clock.move(1)
    await succeed(throttle, ada, OFFICE)
    assert await rows(engine, known_addresses) == 1


async def test_an_everyday_log_in_writes_nothing(engine: AsyncEngine, throttle: LoginThrottle, ada: User) -> None:
    """The second log-in of a day from one place leaves no row of any kind."""
    await succeed(throttle, ada, HOME)
    attempt = await throttle.start("ada", HOME)
    assert attempt.no_failures
    await throttle.record_success(attempt, ada.id)
    assert (await rows(engine, login_failures), await rows(engine, known_addresses)) == (0, 1)


async def test_addresses_of_one_network_are_one(throttle: LoginThrottle) -> None:
    """Who has 2^64 IPv6 addresses is one caller; an IPv4 address is the same however it is written."""
    for number in range(3):
        await fail(throttle, f"user{number}", f"2001:db8:0:1::{number}")
        await fail(throttle, f"user{number}", f"::ffff:{AWAY}")
    assert await waits(throttle, "ada", "2001:db8:0:1:ffff::1") == 1
    assert await waits(throttle, "ada", "2001:db8:0:2::1") == 0
    assert await waits(throttle, "ada", AWAY) == 1


async def test_of_many_guesses_at_once_one_is_let_through(
    database_url: str, throttle: LoginThrottle, clock: Clock
) -> None:
    """Once an account is watched, forty tries at once from two processes come to one that is checked."""
    await fail(throttle, "ada", AWAY, 3)
    clock.move(1)
    other_engine = open_engine(database_url)
    try:
        both = (throttle, LoginThrottle(other_engine, clock))
        tries = [both[number % 2].start("ada", f"203.0.113.{number}") for number in range(40)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    finally:
        await other_engine.dispose()
    assert [type(outcome) for outcome in outcomes].count(TooManyGuesses) == 39
    assert await waits(throttle, "ada", AWAY) == 2


async def test_failures_at_once_are_all_counted(engine: AsyncEngine, throttle: LoginThrottle) -> None:
    """Ten tries that began before the first had failed leave ten failures."""
    attempts = [await throttle.start("ada", AWAY) for _ in range(10)]
    await asyncio.gather(*(throttle.record_failure(attempt) for attempt in attempts))
    async with engine.connect() as connection:
        assert (await connection.execute(select(login_failures.c.failures))).scalars().all() == [10, 10, 10]
    assert await waits(throttle, "ada", AWAY) == 60


async def test_forgotten_failures_are_removed(engine: AsyncEngine, throttle: LoginThrottle, clock: Clock) -> None:
    """Names that are guessed once do not fill the table."""
    for number in range(20):
        await fail(throttle, f"user{number}", f"192.0.2.{number}")
    assert await rows(engine, login_failures) == 60
    clock.move(RESET_AFTER.total_seconds() + 61)
    await fail(throttle, "ada", AWAY)
    assert await rows(engine, login_failures) == 3


async def test_only_digests_are_kept_of_failures(engine: AsyncEngine, throttle: LoginThrottle) -> None:
    """What was typed as a name can be a password: it is not stored."""
    await fail(throttle, "correct horse", AWAY)
    async with engine.connect() as connection:
        keys = (await connection.execute(select(login_failures.c.key))).scalars().all()
    assert {len(key) for key in keys} == {64}
    assert not any("horse" in key or AWAY in key for key in keys)


class SlowHasher(PasswordHasher):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def verify(self, password: str, stored: str | None) -> bool:
        await self.go.wait()
        return await super().verify(password, stored)


async def test_a_crowd_is_turned_away_at_once(engine: AsyncEngine, throttle: LoginThrottle) -> None:
    """More log-ins than a process takes at once are refused without a database or a hash; the others end as they do."""
    hasher = SlowHasher()
    logins = LoginService(AccountService(UserStore(engine), hasher), throttle, OneTimeCodes(engine, None))
    inside = [asyncio.create_task(logins.log_in(f"user{n}", WRONG, "", f"10.0.0.{n}")) for n in range(MAX_CONCURRENT)]
    await asyncio.sleep(0)
    with pytest.raises(HashingBusy):
        await logins.log_in("ada", GOOD, "", AWAY)
    hasher.go.set()
    outcomes = await asyncio.gather(*inside, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BadCredentials}
    with pytest.raises(BadCredentials):
        await logins.log_in("ada", GOOD, "", AWAY)


class CountingHasher(PasswordHasher):
    """Counts the passwords that it verifies."""

    verified = 0

    async def verify(self, password: str, stored: str | None) -> bool:
        self.verified += 1
        return await super().verify(password, stored)


async def test_who_waits_costs_no_hash(engine: AsyncEngine, throttle: LoginThrottle, clock: Clock) -> None:
    """A log-in that has to wait is refused before its password is hashed; the right one then clears all."""
    hasher = CountingHasher()
    accounts = AccountService(UserStore(engine), hasher)
    await accounts.add("ada", Role.CLIENT, GOOD)
    logins = LoginService(accounts, throttle, OneTimeCodes(engine, None))
    for _ in range(3):
        with pytest.raises(BadCredentials):
            await logins.log_in("ada", WRONG, "", AWAY)
    with pytest.raises(TooManyGuesses):
        await logins.log_in("ada", GOOD, "", AWAY)
    assert hasher.verified == 3
    clock.move(1)
    assert (await logins.log_in("ada", GOOD, "", AWAY)).name == "ada"
    assert await rows(engine, login_failures) == 0

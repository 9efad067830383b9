"""Failed logins delay further attempts for the account and the network, across all processes."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User
from auth.login.throttle import KNOWN_NETWORK_LIFETIME, RESET_AFTER, LoginThrottle, compute_wait_s
from auth.tables import known_addresses, login_failures
from storage.engine import open_engine
from tests.auth.login.attempts import AWAY, HOME, OFFICE, Clock, fail, get_wait_s, succeed
from tests.support.polling import PATIENCE_S


async def count_rows(engine: AsyncEngine, table: Any) -> int:
    async with engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


def test_waits_double_up_to_a_minute() -> None:
    """Two failures cause no wait; the third causes one second, which doubles with each failure up to a minute."""
    assert [compute_wait_s(failures) for failures in range(11)] == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert compute_wait_s(10**9) == 60


async def test_an_account_is_delayed_from_every_address(throttle: LoginThrottle, clock: Clock) -> None:
    """Failures from three addresses delay the account at a fourth, where other accounts are not delayed."""
    for number in range(3):
        await fail(throttle, "ada", f"192.0.2.{number}")
    assert await get_wait_s(throttle, "ada", AWAY) == 1
    assert await get_wait_s(throttle, "grace", AWAY) == 0
    clock.move(1)
    await fail(throttle, "ada", AWAY)
    assert await get_wait_s(throttle, "ada", AWAY) == 2


async def test_an_address_is_delayed_for_every_account(throttle: LoginThrottle) -> None:
    """Failures for several accounts delay every account at the address; unknown names count as well."""
    for name in ("ada", "grace", "' OR 1=1"):
        await fail(throttle, name, AWAY)
    assert await get_wait_s(throttle, "edsger", AWAY) == 1
    assert await get_wait_s(throttle, "a\0b", AWAY) == 1
    assert await get_wait_s(throttle, "edsger", HOME) == 0


async def test_failure_counters_are_reset_after_fifteen_minutes(throttle: LoginThrottle, clock: Clock) -> None:
    """After fifteen minutes without a failure the first failures cause no wait again."""
    await fail(throttle, "ada", AWAY, 3)
    clock.move(RESET_AFTER.total_seconds() + 1)
    await fail(throttle, "ada", AWAY, 2)
    assert await get_wait_s(throttle, "ada", AWAY) == 0


async def test_a_failure_does_not_wait_for_old_counters(
    engine: AsyncEngine, throttle: LoginThrottle, clock: Clock
) -> None:
    """An attempt that removes old counters leaves those that another attempt has locked, so they cannot deadlock."""
    await fail(throttle, "ada", AWAY)
    clock.move(RESET_AFTER.total_seconds() + 1)
    async with engine.connect() as other, asyncio.timeout(PATIENCE_S):
        await other.execute(select(login_failures).with_for_update())
        await fail(throttle, "grace", HOME)
        await other.rollback()
    clock.move(RESET_AFTER.total_seconds() + 1)
    await fail(throttle, "grace", HOME)
    assert await count_rows(engine, login_failures) == 3


async def test_early_attempts_do_not_extend_the_wait(throttle: LoginThrottle, clock: Clock) -> None:
    """Attempts that are rejected for coming too early do not count as failures."""
    await fail(throttle, "ada", AWAY, 3)
    for _ in range(20):
        assert await get_wait_s(throttle, "ada", AWAY) == 1
    clock.move(1)
    assert await get_wait_s(throttle, "ada", AWAY) == 0


async def test_success_resets_the_account_s_failures(throttle: LoginThrottle, ada: User) -> None:
    """A successful login resets the failures of the account at every address."""
    await fail(throttle, "ada", HOME, 2)
    await succeed(throttle, ada, HOME)
    await fail(throttle, "ada", HOME, 2)
    assert await get_wait_s(throttle, "ada", HOME) == 0


async def test_success_keeps_the_failures_of_other_accounts(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """A successful login does not reset the failures for other accounts at the same address."""
    for name in ("grace", "edsger", "barbara"):
        await fail(throttle, name, AWAY)
    clock.move(1)
    await succeed(throttle, ada, AWAY)
    await fail(throttle, "tony", AWAY)
    assert await get_wait_s(throttle, "tony", AWAY) == 2


async def test_a_user_cannot_be_locked_out_of_a_known_network(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Neither failures elsewhere nor failures of other accounts delay a user in a known network."""
    await succeed(throttle, ada, HOME)
    for _ in range(12):
        clock.move(61)
        await fail(throttle, "ada", AWAY)
        await fail(throttle, "grace", HOME)
    assert await get_wait_s(throttle, "ada", AWAY) == 60
    assert await get_wait_s(throttle, "ada", OFFICE) == 60
    assert await get_wait_s(throttle, "grace", OFFICE) == 60
    assert await get_wait_s(throttle, "ada", HOME) == 0


async def test_failures_in_a_known_network_are_delayed(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Failures for an account in its known network delay the account, and the network, like other failures."""
    await succeed(throttle, ada, HOME)
    await fail(throttle, "ada", HOME, 3)
    assert await get_wait_s(throttle, "ada", HOME) == 1
    assert await get_wait_s(throttle, "grace", HOME) == 1
    assert await get_wait_s(throttle, "ada", OFFICE) == 1
    clock.move(1)
    await fail(throttle, "ada", HOME)
    assert await get_wait_s(throttle, "ada", HOME) == 2


async def test_a_network_is_known_for_thirty_days(
    engine: AsyncEngine, throttle: LoginThrottle, ada: User, clock: Clock
) -> None:
    """A network from which the user has not logged in for thirty days is no longer known, and is deleted."""
    await succeed(throttle, ada, HOME)
    clock.move(KNOWN_NETWORK_LIFETIME.total_seconds())
    await fail(throttle, "ada", AWAY, 3)
    assert await get_wait_s(throttle, "ada", HOME) == 1
    clock.move(1)
    await succeed(throttle, ada, OFFICE)
    assert await count_rows(engine, known_addresses) == 1


async def test_a_repeated_log_in_writes_nothing(engine: AsyncEngine, throttle: LoginThrottle, ada: User) -> None:
    """The second login of a day from one network writes no row."""
    await succeed(throttle, ada, HOME)
    attempt = await throttle.start("ada", HOME)
    assert attempt.no_failures
    await throttle.record_success(attempt, ada.id)
    assert (await count_rows(engine, login_failures), await count_rows(engine, known_addresses)) == (0, 1)


async def test_addresses_of_one_network_count_together(throttle: LoginThrottle) -> None:
    """An IPv6 /64 network counts as one client, and an IPv4-mapped address as its IPv4 address."""
    for number in range(3):
        await fail(throttle, f"user{number}", f"2001:db8:0:1::{number}")
        await fail(throttle, f"user{number}", f"::ffff:{AWAY}")
    assert await get_wait_s(throttle, "ada", "2001:db8:0:1:ffff::1") == 1
    assert await get_wait_s(throttle, "ada", "2001:db8:0:2::1") == 0
    assert await get_wait_s(throttle, "ada", AWAY) == 1


async def test_one_of_many_concurrent_attempts_is_checked(
    database_url: str, throttle: LoginThrottle, clock: Clock
) -> None:
    """After three failures only one of twenty concurrent attempts in two processes is checked."""
    await fail(throttle, "ada", AWAY, 3)
    clock.move(1)
    other_engine = open_engine(database_url)
    try:
        both = (throttle, LoginThrottle(other_engine, clock))
        attempts = [both[number % 2].start("ada", f"203.0.113.{number}") for number in range(20)]
        outcomes = await asyncio.gather(*attempts)
    finally:
        await other_engine.dispose()
    assert sum(attempt.refused for attempt in outcomes) == 19
    assert await get_wait_s(throttle, "ada", AWAY) == 2


async def test_concurrent_failures_are_all_counted(engine: AsyncEngine, throttle: LoginThrottle) -> None:
    """Ten attempts that started before the first one failed are counted as ten failures."""
    attempts = [await throttle.start("ada", AWAY) for _ in range(10)]
    await asyncio.gather(*(throttle.record_failure(attempt) for attempt in attempts))
    async with engine.connect() as connection:
        assert (await connection.execute(select(login_failures.c.failures))).scalars().all() == [10, 10, 10]
    assert await get_wait_s(throttle, "ada", AWAY) == 60


async def test_expired_failures_are_deleted(engine: AsyncEngine, throttle: LoginThrottle, clock: Clock) -> None:
    """Counters that no longer matter are deleted from the table."""
    for number in range(20):
        await fail(throttle, f"user{number}", f"192.0.2.{number}")
    assert await count_rows(engine, login_failures) == 60
    clock.move(RESET_AFTER.total_seconds() + 61)
    await fail(throttle, "ada", AWAY)
    assert await count_rows(engine, login_failures) == 3


async def test_failures_are_stored_as_digests(engine: AsyncEngine, throttle: LoginThrottle) -> None:
    """Names and addresses are stored only as digests, because users may type a password as the name."""
    await fail(throttle, "correct horse", AWAY)
    async with engine.connect() as connection:
        keys = (await connection.execute(select(login_failures.c.key))).scalars().all()
    assert {len(key) for key in keys} == {64}
    assert not any("horse" in key or AWAY in key for key in keys)

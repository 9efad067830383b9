"""Log-in attempts during a wait: they reveal no users, extend no wait and lock no owner out, whatever the clock."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User
from auth.errors import LoginThrottled
from auth.login.throttle import MAX_WAIT_S, RESET_AFTER, Factor, LoginThrottle
from auth.tables import login_failures
from tests.auth.login.attempts import AWAY, HOME, OFFICE, Clock, fail, get_wait_s, guess, succeed


async def read_failures(engine: AsyncEngine) -> set[Any]:
    async with engine.connect() as connection:
        return {tuple(row) for row in await connection.execute(select(login_failures))}


async def test_early_attempts_reveal_no_user(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Guesses get the same results for a user who has logged in from the address as for an unknown name."""
    await succeed(throttle, ada, HOME)
    results: dict[str, list[int]] = {"ada": [], "nobody": []}
    for _ in range(4):
        for address in (HOME, OFFICE):
            await fail(throttle, f"someone at {address}", address)
        clock.move(1)
    for _ in range(40):
        for name, address in (("ada", HOME), ("nobody", OFFICE)):
            results[name].append(await guess(throttle, name, address))
        clock.move(0.3)
    assert results["ada"] == results["nobody"]
    assert {0, 1, 2, 4} <= set(results["ada"])


async def test_early_attempts_at_an_attacked_account_reveal_no_user(
    throttle: LoginThrottle, ada: User, clock: Clock
) -> None:
    """While failures elsewhere delay a user and an unknown name, guesses at the user's address get the same wait."""
    await succeed(throttle, ada, HOME)
    for address in (AWAY, OFFICE, "203.0.113.1", "203.0.113.2"):
        clock.move(1)
        for name in ("ada", "nobody"):
            await fail(throttle, name, address)
    assert [await guess(throttle, name, HOME) for name in ("ada", "nobody")] == [2, 2]


async def test_early_attempts_at_an_owner_s_address_are_slowed(
    throttle: LoginThrottle, ada: User, clock: Clock
) -> None:
    """While an address is delayed, three guesses at its owner's account are checked, and then one after each wait."""
    await succeed(throttle, ada, HOME)
    for _ in range(12):
        clock.move(MAX_WAIT_S + 1)
        await fail(throttle, "grace", HOME)
    checked = 0
    for _ in range(30):
        clock.move(1)
        try:
            attempt = await throttle.start("ada", HOME)
        except LoginThrottled:
            continue
        assert not attempt.refused
        checked += 1
        with pytest.raises(LoginThrottled):
            await throttle.record_failure(attempt)
    assert checked == 7  # three, and after waits of 1, 2, 4 and 8 s


async def test_early_attempts_extend_no_wait(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """Early attempts, wrong or right, do not change when the wait of other accounts at the address ends."""
    await succeed(throttle, ada, HOME)
    for _ in range(5):
        clock.move(MAX_WAIT_S + 1)
        await fail(throttle, "grace", HOME)
    clock.move(1)
    assert await guess(throttle, "ada", HOME) == 3
    assert await guess(throttle, "nobody", HOME) == 3
    await succeed(throttle, ada, HOME)
    assert await get_wait_s(throttle, "nobody", HOME) == 3
    clock.move(3)
    assert await get_wait_s(throttle, "nobody", HOME) == 0


async def test_successes_do_not_prolong_an_address_s_wait(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """The failures of an address are reset fifteen minutes after the last one, even if users log in from it."""
    for _ in range(5):
        clock.move(MAX_WAIT_S + 1)
        await fail(throttle, "grace", HOME)
    for minutes in range(2, 15, 2):
        clock.move(120)
        await succeed(throttle, ada, HOME)
        assert await get_wait_s(throttle, "edsger", HOME) == 0, minutes
    clock.move(RESET_AFTER.total_seconds() - 840 + 1)
    for _ in range(2):
        assert await guess(throttle, "edsger", HOME) == 0
    assert await get_wait_s(throttle, "edsger", HOME) == 0


@pytest.mark.parametrize("outcome", ["success", "withdrawal"])
async def test_an_attempt_that_does_not_fail_leaves_no_trace(
    engine: AsyncEngine, throttle: LoginThrottle, ada: User, clock: Clock, outcome: str
) -> None:
    """An attempt is counted in advance; when it succeeds or is withdrawn, the counters and times are restored."""
    for _ in range(4):
        await fail(throttle, "grace", AWAY)
        clock.move(MAX_WAIT_S)
    before = await read_failures(engine)
    attempt = await throttle.start("ada", AWAY)
    assert await get_wait_s(throttle, "edsger", AWAY) > 0
    await (throttle.record_success(attempt, ada.id) if outcome == "success" else throttle.withdraw(attempt))
    assert await read_failures(engine) == before


async def test_a_failure_meanwhile_is_not_undone(throttle: LoginThrottle, ada: User, clock: Clock) -> None:
    """A success does not backdate a failure that was recorded while its password was being checked."""
    await fail(throttle, "grace", AWAY, 2)
    slow = await throttle.start("edsger", AWAY)
    await fail(throttle, "grace", AWAY)
    clock.move(10)
    attempt = await throttle.start("ada", AWAY)
    clock.move(0.5)
    await throttle.record_failure(slow)
    await throttle.record_success(attempt, ada.id)
    assert await get_wait_s(throttle, "tony", AWAY) == 2


@pytest.mark.parametrize("back_s", [60, 3600, 400 * 86_400])
async def test_a_clock_that_is_set_back_locks_nobody_out(throttle: LoginThrottle, clock: Clock, back_s: int) -> None:
    """After the clock is set back, a wait is as long as if the last failure happened now, and failures still count."""
    await fail(throttle, "ada", AWAY, 3)
    clock.move(-back_s)
    assert await get_wait_s(throttle, "ada", AWAY) == 1
    clock.move(1)
    assert await get_wait_s(throttle, "ada", AWAY) == 0
    await fail(throttle, "ada", AWAY)
    assert await get_wait_s(throttle, "ada", AWAY) == 2


async def test_machines_whose_clocks_differ_a_little_share_the_waits(
    engine: AsyncEngine, throttle: LoginThrottle, clock: Clock
) -> None:
    """A machine whose clock is two seconds behind does not end early a wait that another machine started."""
    late = LoginThrottle(engine, lambda: clock() - timedelta(seconds=2))
    await fail(throttle, "ada", AWAY, 3)
    clock.move(1)
    await fail(throttle, "ada", AWAY)
    assert await get_wait_s(late, "ada", AWAY) == 2
    clock.move(3)
    assert await get_wait_s(late, "ada", AWAY) == 1
    assert await get_wait_s(throttle, "ada", AWAY) == 0


async def test_only_a_right_code_resets_the_wrong_codes(throttle: LoginThrottle, ada: User) -> None:
    """Right passwords do not reset the count of wrong codes, and wrong codes do not count as wrong passwords."""
    start_code = partial(throttle.start, "ada", HOME, Factor.CODE)
    for _ in range(3):
        await throttle.record_failure(await start_code())
        await succeed(throttle, ada, HOME)
    assert await get_wait_s(throttle, "ada", HOME) == 0
    with pytest.raises(LoginThrottled):
        await start_code()
    await fail(throttle, "ada", AWAY, 2)
    assert await get_wait_s(throttle, "ada", AWAY) == 0


async def test_a_right_code_resets_the_wrong_codes(throttle: LoginThrottle, clock: Clock) -> None:
    """A right code resets the count of wrong codes, but not that of wrong passwords."""
    start_code = partial(throttle.start, "ada", HOME, Factor.CODE)
    await fail(throttle, "ada", HOME, 2)
    for _ in range(3):
        await throttle.record_failure(await start_code())
    clock.move(1)
    await throttle.record_success(await start_code())
    for _ in range(2):
        await throttle.record_failure(await start_code())
    assert not (await start_code()).early_by_s
    await fail(throttle, "ada", HOME)
    assert await get_wait_s(throttle, "ada", HOME) == 1

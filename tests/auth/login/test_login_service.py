"""How many log-ins there may be at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from auth.accounts.service import AccountService
from auth.errors import HashingBusy
from auth.login.service import MAX_CONCURRENT, MAX_CONCURRENT_PER_ACCOUNT, LoginService
from auth.login.throttle import LoginThrottle
from auth.login.totp import OneTimeCodes


class Slow:
    """Passwords that are not judged before the test is over."""

    async def authenticate(self, *_: Any) -> None:
        await asyncio.Event().wait()


class Patient:
    """Guesses that are never counted."""

    async def start(self, *_: Any) -> None: ...

    async def withdraw(self, *_: Any) -> None: ...


@pytest.fixture
def logins() -> LoginService:
    accounts: Any = Slow()
    throttle: Any = Patient()
    codes: Any = None
    typed: tuple[AccountService, LoginThrottle, OneTimeCodes] = accounts, throttle, codes
    return LoginService(*typed)


async def test_one_account_keeps_nobody_out(logins: LoginService) -> None:
    """Of one account's half as many may wait for a hash as of all: the rest is free for others."""
    waiting = [asyncio.create_task(logins.log_in("ana", "x", "", "a")) for _ in range(MAX_CONCURRENT_PER_ACCOUNT)]
    await asyncio.sleep(0)
    with pytest.raises(HashingBusy):
        await logins.log_in("ana", "x", "", "b")
    waiting += [
        asyncio.create_task(logins.log_in(f"user{index}", "x", "", "a"))
        for index in range(MAX_CONCURRENT - MAX_CONCURRENT_PER_ACCOUNT)
    ]
    await asyncio.sleep(0)
    with pytest.raises(HashingBusy):
        await logins.log_in("late", "x", "", "a")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    asked = asyncio.create_task(logins.log_in("ana", "x", "", "a"))
    await asyncio.sleep(0)
    assert not asked.done()
    asked.cancel()

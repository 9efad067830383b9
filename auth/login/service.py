"""Logging in: the password, then the one-time code if the user has enabled them, slowed down after failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth.accounts.service import AccountService
from auth.accounts.store import User
from auth.errors import AuthError, BadCode, BadCredentials, HashingBusy, MissingCode
from auth.login.throttle import Attempt, LoginThrottle
from auth.login.totp import OneTimeCodes

# More concurrent log-ins would only wait for a hash, and use database connections that predictions need.
MAX_CONCURRENT = 8
MAX_CONCURRENT_PER_ACCOUNT = 4  # so that attempts on one account cannot keep other users out


class LoginService:
    """Every method raises LoginThrottled, HashingBusy, DatabaseUnavailable.

    An attempt that ends with any other error than a wrong password or code counts as neither failed nor successful.
    """

    def __init__(self, accounts: AccountService, throttle: LoginThrottle, codes: OneTimeCodes) -> None:
        self._accounts = accounts
        self._throttle = throttle
        self._codes = codes
        self._concurrent: Counter[str] = Counter()  # attempts by account

    async def log_in(self, name: str, password: str, code: str, address: str) -> User:
        """Return the user. An empty `code` means that none was sent.

        Raises BadCredentials, and BadCode only if the password is right.
        """
        async with self._attempt(name, address) as attempt:
            user = await self._accounts.authenticate(name, password)
            if user.totp:
                if not code:
                    raise MissingCode
                await self._codes.check(user, code)
        await self._throttle.record_success(attempt, user.id)
        return user

    async def check_password(self, user: User, password: str, address: str) -> None:
        """Confirm the identity of a user who has already logged in. Raises BadCredentials."""
        async with self._attempt(user.name, address) as attempt:
            await self._accounts.authenticate(user.name, password)
        await self._throttle.record_success(attempt, user.id)

    async def remove_codes(self, user: User, code: str, address: str) -> None:
        """Disable the user's one-time codes, if `code` is right. Raises BadCode, TotpConflict."""
        async with self._attempt(user.name, address) as attempt:
            await self._codes.remove(user, code)
        await self._throttle.record_success(attempt, user.id)

    @asynccontextmanager
    async def _attempt(self, name: str, address: str) -> AsyncIterator[Attempt]:
        if self._concurrent.total() >= MAX_CONCURRENT or self._concurrent[name] >= MAX_CONCURRENT_PER_ACCOUNT:
            raise HashingBusy("Too many log-ins are in progress. Try again in a second.", retry_after_s=1)
        self._concurrent[name] += 1
        try:
            async with self._throttled(name, address) as attempt:
                yield attempt
        finally:
            self._concurrent[name] -= 1
            if not self._concurrent[name]:
                del self._concurrent[name]

    @asynccontextmanager
    async def _throttled(self, name: str, address: str) -> AsyncIterator[Attempt]:
        attempt = await self._throttle.start(name, address)
        try:
            yield attempt
        except AuthError as error:
            wrong_guess = isinstance(error, BadCredentials | BadCode) and not isinstance(error, MissingCode)
            await (self._throttle.record_failure(attempt) if wrong_guess else self._throttle.withdraw(attempt))
            raise

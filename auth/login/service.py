"""A log-in: the password, then the one-time code where the user has one; guessing is slowed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth.accounts.service import AccountService
from auth.accounts.store import User
from auth.errors import AuthError, BadCode, BadCredentials, HashingBusy, MissingCode
from auth.login.throttle import Attempt, LoginThrottle
from auth.login.totp import OneTimeCodes

# More at once than these would only wait for a hash, and keep the database from the predictions meanwhile.
MOST_AT_ONCE = 8
MOST_OF_ONE = 4  # of one account: nobody keeps the others out


class LoginService:
    """Every method raises TooManyGuesses, HashingBusy, DatabaseUnavailable.

    An attempt that comes to no verdict counts neither way.
    """

    def __init__(self, accounts: AccountService, throttle: LoginThrottle, codes: OneTimeCodes) -> None:
        self._accounts = accounts
        self._throttle = throttle
        self._codes = codes
        self._at_once: Counter[str] = Counter()  # by account

    async def log_in(self, name: str, password: str, code: str, address: str) -> User:
        """Raises BadCredentials, and BadCode only once the password was right. An empty `code` is none."""
        async with self._guess(name, address) as attempt:
            user = await self._accounts.authenticate(name, password)
            if user.totp:
                if not code:
                    raise MissingCode
                await self._codes.check(user, code)
        await self._throttle.succeeded(attempt, user.id)
        return user

    async def check_password(self, user: User, password: str, address: str) -> None:
        """For a user who has logged in: is it really that one? Raises BadCredentials."""
        async with self._guess(user.name, address) as attempt:
            await self._accounts.authenticate(user.name, password)
        await self._throttle.succeeded(attempt, user.id)

    async def remove_codes(self, user: User, code: str, address: str) -> None:
        """Raises BadCode, TotpConflict."""
        async with self._guess(user.name, address) as attempt:
            await self._codes.remove(user, code)
        await self._throttle.succeeded(attempt, user.id)

    @asynccontextmanager
    async def _guess(self, name: str, address: str) -> AsyncIterator[Attempt]:
        if self._at_once.total() >= MOST_AT_ONCE or self._at_once[name] >= MOST_OF_ONE:
            raise HashingBusy("Too many logins at the moment. Try again in a second.", retry_after_s=1)
        self._at_once[name] += 1
        try:
            async with self._counted(name, address) as attempt:
                yield attempt
        finally:
            self._at_once[name] -= 1
            if not self._at_once[name]:
                del self._at_once[name]

    @asynccontextmanager
    async def _counted(self, name: str, address: str) -> AsyncIterator[Attempt]:
        attempt = await self._throttle.begin(name, address)
        try:
            yield attempt
        except AuthError as error:
            guessed = isinstance(error, BadCredentials | BadCode) and not isinstance(error, MissingCode)
            await (self._throttle.failed(attempt) if guessed else self._throttle.undone(attempt))
            raise

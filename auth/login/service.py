"""Logging in and confirming an identity with passwords and one-time codes, which are throttled after failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from auth.accounts.service import AccountService, normalise_user_name
from auth.accounts.slots import FairSlots
from auth.accounts.store import User
from auth.errors import BadCode, BadCredentials, MissingCode
from auth.login.throttle import Attempt, Factor, LoginThrottle
from auth.login.totp import OneTimeCodes
from auth.networks import client_network
from storage.transactions import Record, record_nothing

# Enough to keep two hashing threads busy; more would only take database connections from predictions.
MAX_CONCURRENT = 4
MAX_WAITING = 16
_WRONG_GUESS = {Factor.PASSWORD: BadCredentials, Factor.CODE: BadCode}


class LoginService:
    """Every method raises LoginThrottled, HashingBusy, DatabaseUnavailable.

    An attempt that is cancelled, or ends with an error other than a wrong password or code, is counted as neither
    failed nor successful.
    Logins have their own slots: account changes occupy at most one of the two hashing threads.
    """

    def __init__(self, accounts: AccountService, throttle: LoginThrottle, codes: OneTimeCodes) -> None:
        self._accounts = accounts
        self._throttle = throttle
        self._codes = codes
        self._login_slots = FairSlots(MAX_CONCURRENT, MAX_WAITING)
        self._account_slots = FairSlots(1, MAX_WAITING)
        self._endings: set[asyncio.Task[None]] = set()  # keeps the tasks from being garbage-collected

    async def log_in(
        self, name: str, password: str, code: str, address: str, accept: Callable[[User], object] = lambda _: None
    ) -> User:
        """Return the user. An empty `code` means that none was sent.

        `accept` may raise an error to reject the user; it is called when the password and the code are right, before
        the code is marked as used. Raises BadCredentials, and BadCode only if the password is right.
        """
        name = normalise_user_name(name)
        async with self._login_slots.acquire(client_network(address), name):
            async with self._throttled(Factor.PASSWORD, name, address) as attempt:
                user = await self._accounts.authenticate(name, password, treat_as_wrong=attempt.refused)
                if user.totp:
                    await self._check_code(user, code, address, partial(accept, user))
                else:
                    accept(user)
            await self._record_success(attempt, user.id)
        return user

    async def check_password(self, user: User, password: str, address: str) -> User:
        """Confirm the identity of a user who has already logged in, and return the user. Raises BadCredentials."""
        async with self._account_slots.acquire(user.id):
            try:
                async with self._throttled(Factor.PASSWORD, user.name, address) as attempt:
                    checked = await self._accounts.authenticate(user.name, password, treat_as_wrong=attempt.refused)
            except BadCredentials:
                raise BadCredentials("The current password is wrong. Check it and try again.") from None
            await self._record_success(attempt)
        return checked

    async def confirm_codes(
        self,
        user: User,
        code: str,
        address: str,
        keep_session: str | None,
        *,
        record: Record[None] = record_nothing,
    ) -> None:
        """Enable the user's one-time codes, if `code` is right; see OneTimeCodes. Raises BadCode, TotpConflict."""
        async with self._account_slots.acquire(user.id), self._code_attempt(user, address):
            await self._codes.confirm(user, code, keep_session, record=record)

    async def remove_codes(self, user: User, code: str, address: str, *, record: Record[None] = record_nothing) -> None:
        """Disable the user's one-time codes, if `code` is right. Raises BadCode, TotpConflict."""
        async with self._account_slots.acquire(user.id), self._code_attempt(user, address):
            await self._codes.remove(user, code, record=record)

    async def _check_code(self, user: User, code: str, address: str, before_use: Callable[[], object]) -> None:
        if not code:
            raise MissingCode
        async with self._code_attempt(user, address):
            await self._codes.check(user, code, before_use)

    @asynccontextmanager
    async def _code_attempt(self, user: User, address: str) -> AsyncIterator[None]:
        """Count wrong codes separately from wrong passwords. Only a correct code resets the count."""
        async with self._throttled(Factor.CODE, user.name, address) as attempt:
            if attempt.refused:
                raise BadCode
            yield
        await self._record_success(attempt)

    @asynccontextmanager
    async def _throttled(self, factor: Factor, name: str, address: str) -> AsyncIterator[Attempt]:
        attempt = await self._throttle.start(name, address, factor)
        try:
            yield attempt
        except (Exception, asyncio.CancelledError) as error:
            failed = isinstance(error, _WRONG_GUESS[factor])
            await self._finish(self._throttle.record_failure(attempt) if failed else self._throttle.withdraw(attempt))
            raise

    async def _record_success(self, attempt: Attempt, user_id: str | None = None) -> None:
        async def record_or_withdraw() -> None:
            try:
                await self._throttle.record_success(attempt, user_id)
            except Exception:
                await self._throttle.withdraw(attempt)
                raise

        await self._finish(record_or_withdraw())

    async def _finish(self, end: Coroutine[Any, Any, None]) -> None:
        """Wait for the end of an attempt, which is completed even if the caller is cancelled: nothing stays counted."""
        ending = asyncio.create_task(end)
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        await asyncio.shield(ending)

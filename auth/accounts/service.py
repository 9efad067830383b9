"""What can be done with users: add, log in, change a password, disable, and make the first one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace

from auth.accounts.passwords import PasswordHasher, check_password_policy
from auth.accounts.store import NO_QUOTAS, Quotas, User, UserChange, UserStore
from auth.errors import BadCredentials, BadUserName, UserExists
from auth.principal import Role

_NAME = re.compile(r"[a-z0-9._@-]{1,64}")
_FIRST_ADMIN = "admin"


class AccountService:
    """Every method raises DatabaseUnavailable; those that take a password also raise HashingBusy."""

    def __init__(self, store: UserStore, hasher: PasswordHasher) -> None:
        self._store = store
        self._hasher = hasher

    async def add(self, name: str, role: Role, password: str, quotas: Quotas = NO_QUOTAS) -> User:
        """Raises BadUserName, PasswordRefused, UserExists."""
        _check_name(name)
        check_password_policy(password, name)
        return await self._store.add(name, role, await self._hasher.hash(password), quotas)

    async def authenticate(self, name: str, password: str) -> User:
        """Raises BadCredentials, the same and after the same work for every reason."""
        # Names that nobody can have stay away from the database, which chokes on some characters.
        found = await self._store.find(name) if is_user_name(name) else None
        user, stored = found or (None, None)
        matches = await self._hasher.verify(password, stored)
        if user is None or not matches or user.disabled_at is not None:
            raise BadCredentials
        return user

    async def get(self, user_id: str) -> User:
        """Raises UserNotFound."""
        return await self._store.get(user_id)

    async def change(self, user_id: str, change: UserChange, password: str | None = None) -> User:
        """Change a user, the password too where one is given; see UserStore.change.

        Raises PasswordRefused, UserNotFound, LastAdmin.
        """
        if password is not None:
            check_password_policy(password, (await self._store.get(user_id)).name)
            change = replace(change, password_hash=await self._hasher.hash(password))
        return await self._store.change(user_id, change)

    async def set_password(self, name: str, password: str, keep_session: str | None = None) -> User:
        """End the user's log-ins, but for `keep_session`. Raises BadUserName, PasswordRefused, UserNotFound."""
        _check_name(name)
        check_password_policy(password, name)
        return await self._store.set_password_hash(name, await self._hasher.hash(password), keep_session)

    async def disable(self, name: str) -> User:
        """Raises BadUserName, UserNotFound."""
        _check_name(name)
        return await self._store.disable(name)

    async def enable(self, name: str) -> User:
        """Raises BadUserName, UserNotFound."""
        _check_name(name)
        return await self._store.enable(name)

    async def set_role(self, name: str, role: Role) -> User:
        """Raises BadUserName, UserNotFound."""
        _check_name(name)
        return await self._store.set_role(name, role)

    async def reset_totp(self, name: str) -> User:
        """Raises BadUserName, UserNotFound."""
        _check_name(name)
        return await self._store.reset_totp(name)

    async def list(self) -> Sequence[User]:
        return await self._store.list()

    async def bootstrap_admin(self) -> str | None:
        """Make the user `admin` if there are no users; return the random password, which is kept nowhere else.

        Of several processes that start at once, one returns a password and the others None.
        """
        if await self._store.count():
            return None
        password = secrets.token_urlsafe(24)
        try:
            await self.add(_FIRST_ADMIN, Role.ADMIN, password)
        except UserExists:
            return None
        return password


def is_user_name(text: str) -> bool:
    """Whether anybody can have this name."""
    return _NAME.fullmatch(text) is not None


def _check_name(name: str) -> None:
    if not is_user_name(name):
        raise BadUserName("A user name has 1 to 64 of the characters a-z 0-9 . _ @ -. Correct it.")

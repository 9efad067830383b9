"""User accounts: adding, authenticating and changing users, and creating the first administrator."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace

from auth.accounts.passwords import PasswordHasher, check_password_policy
from auth.accounts.store import NO_CHANGE, NO_QUOTAS, Quotas, User, UserChange, UserStore
from auth.errors import BadCredentials, BadUserName, UserExists, UserNotFound
from auth.principal import Role
from storage.transactions import Record, record_nothing

_NAME = re.compile(r"[a-z0-9._@-]{1,64}")
_FIRST_ADMIN = "admin"


class AccountService:
    """Manages user accounts. Every method raises DatabaseUnavailable; methods that hash a password raise HashingBusy.

    Methods with the parameter `record` call it in the transaction of their change.
    """

    def __init__(self, store: UserStore, hasher: PasswordHasher) -> None:
        self._store = store
        self._hasher = hasher

    async def add(
        self,
        name: str,
        role: Role,
        password: str,
        quotas: Quotas = NO_QUOTAS,
        *,
        record: Record[User] = record_nothing,
    ) -> User:
        """Add a user. Raises BadUserName, PasswordRefused, UserExists."""
        _check_name(name)
        check_password_policy(password, name)
        return await self._store.add(name, role, await self._hasher.hash(password), quotas, record=record)

    async def authenticate(self, name: str, password: str, *, treat_as_wrong: bool = False) -> User:
        """Return the user. Raises BadCredentials, with the same message and after the same work for every reason.

        With `treat_as_wrong`, no password is accepted. An outdated hash is replaced.
        """
        name = normalise_user_name(name)
        # Databases reject some characters with an error, so an impossible name is never looked up.
        user, password_hash = (await self._store.find(name) if is_user_name(name) else None) or (None, None)
        if user is None or user.disabled_at is not None or treat_as_wrong:
            await self._hasher.verify(password, None)
            raise BadCredentials
        verification = await self._hasher.verify(password, password_hash)
        if not verification.matches:
            raise BadCredentials
        if password_hash is None or verification.replacement is None:
            return user
        updated = await self._store.replace_hash(user.id, password_hash, verification.replacement)
        return updated or await self.authenticate(name, password)  # retry if another login has replaced the hash

    async def get(self, user_id: str) -> User:
        """Return a user. Raises UserNotFound."""
        return await self._store.get(user_id)

    async def get_by_name(self, name: str) -> User:
        """Return a user. Raises BadUserName, UserNotFound."""
        _check_name(name)
        found = await self._store.find(name)
        if found is None:
            raise UserNotFound(f"There is no user {name}. List the users to see their names.")
        return found[0]

    async def change(
        self,
        user_id: str,
        change: UserChange = NO_CHANGE,
        *,
        password: str | None = None,
        keep_session: str | None = None,
        allow_last_admin: bool = False,
        record: Record[User] = record_nothing,
    ) -> User:
        """Change a user, including the password if one is given; see UserStore.change.

        Raises PasswordRefused, UserNotFound, BadCredentials, and LastAdmin unless `allow_last_admin`.
        """
        if password is not None:
            check_password_policy(password, (await self._store.get(user_id)).name)
            change = replace(change, password_hash=await self._hasher.hash(password))
        return await self._store.change(
            user_id, change, keep_session=keep_session, allow_last_admin=allow_last_admin, record=record
        )

    async def list(self, limit: int | None = None, after: str = "") -> Sequence[User]:
        """Return the users with a name greater than `after`, by name, and at most `limit` if it is given."""
        return await self._store.list(limit, after)

    async def bootstrap_admin(self, record: Record[User] = record_nothing) -> str | None:
        """Create the user `admin` if there are no users, and return its random password, which is not stored.

        If several processes start at once, one of them returns a password and the others return None.
        """
        if await self._store.count():
            return None
        password = secrets.token_urlsafe(24)
        try:
            await self.add(_FIRST_ADMIN, Role.ADMIN, password, record=record)
        except UserExists:
            return None
        return password


def normalise_user_name(text: str) -> str:
    """Return the user name in lower case, because keyboards capitalise the first letter that a user types at a login.

    Only ASCII letters are changed, so that no look-alike becomes a valid name.
    """
    return text.lower() if text.isascii() else text


def is_user_name(text: str) -> bool:
    """Return whether the text is a valid user name."""
    return _NAME.fullmatch(text) is not None


def _check_name(name: str) -> None:
    if not is_user_name(name):
        raise BadUserName("A user name consists of 1 to 64 of the characters a-z 0-9 . _ @ -. Correct it.")

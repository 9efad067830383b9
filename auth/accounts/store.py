"""Stores users in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict
from uuid import UUID, uuid4

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.accounts.credentials import credentials_version
from auth.changes import announce
from auth.errors import BadCredentials, LastAdmin, UserExists, UserNotFound
from auth.principal import Role
from auth.sessions import MAX_ACCESS_TOKEN_LIFETIME, end_sessions
from auth.tables import sessions, users
from storage.transactions import Record, reading, record_nothing, writing


@dataclass(frozen=True, slots=True)
class User:
    """A user as stored, without the secrets.

    Times are UTC; a user with `disabled_at` cannot log in. With `totp`, logging in requires a one-time code. The
    quotas are per month; None means unlimited. Images sent before `images_allowed_since` may not be kept. With
    `credentials_version`, a login detects that the credentials have changed since it checked them.
    """

    id: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    totp: bool = False
    monthly_requests: int | None = None
    monthly_megapixels: int | None = None
    images_allowed_since: datetime | None = None
    credentials_version: str = field(default="", repr=False, compare=False)

    @property
    def keep_images(self) -> bool:
        """Whether the user's images may be kept."""
        return self.images_allowed_since is not None


class Quotas(TypedDict, total=False):
    """The quotas to set; an absent quota stays as it is, None removes it."""

    monthly_requests: int | None
    monthly_megapixels: int | None


NO_QUOTAS = Quotas()


@dataclass(frozen=True, slots=True)
class UserChange:
    """The fields of a user to change; the defaults change nothing.

    `checked_version` is the version of the credentials that the user has confirmed; the change fails if it differs.
    """

    role: Role | None = None
    disabled: bool | None = None
    password_hash: str | None = field(default=None, repr=False)
    reset_totp: bool = False
    keep_images: bool | None = None
    quotas: Quotas = field(default_factory=Quotas)
    checked_version: str | None = None


NO_CHANGE = UserChange()


class UserStore:
    """Stores users. Every method raises DatabaseUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(
        self,
        name: str,
        role: Role,
        password_hash: str,
        quotas: Quotas = NO_QUOTAS,
        *,
        record: Record[User] = record_nothing,
    ) -> User:
        """Add a user. Raises UserExists."""
        version = credentials_version(password_hash, None)
        user = User(str(uuid4()), name, role, datetime.now(UTC), None, credentials_version=version, **quotas)
        row = {"id": user.id, "name": name, "role": role.value, "created_at": user.created_at}
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(users).values(**row, **quotas, password_hash=password_hash))
                await record(connection, user)
        except IntegrityError:
            raise UserExists(f"There is already a user {name}. Choose another name.") from None
        return user

    async def find(self, name: str) -> tuple[User, str] | None:
        """Return the user and the password hash, or None."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(users).where(users.c.name == name))).one_or_none()
        return (_user(row), row.password_hash) if row else None

    async def list(self, limit: int | None = None, after: str = "") -> Sequence[User]:
        """Return the users with a name greater than `after`, by name, and at most `limit` if it is given."""
        statement = select(users).where(users.c.name > after).order_by(users.c.name).limit(limit)
        async with reading(self._engine) as connection:
            return [_user(row) for row in await connection.execute(statement)]

    async def get(self, user_id: str) -> User:
        """Return a user. Raises UserNotFound."""
        async with reading(self._engine) as connection:
            return _user(await _get_row(connection, user_id))

    async def change(
        self,
        user_id: str,
        change: UserChange,
        *,
        keep_session: str | None = None,
        allow_last_admin: bool = False,
        record: Record[User] = record_nothing,
    ) -> User:
        """Change a user in one transaction and return the result.

        Another role, disabling, a new password and removing confirmed one-time codes end the user's sessions, except
        `keep_session`. Fields that already have the requested value change nothing and end no session.

        Raises UserNotFound, BadCredentials if the credentials have another version than the one that was checked, and
        LastAdmin if no enabled administrator would be left, unless `allow_last_admin`.
        """
        async with writing(self._engine) as connection:
            admins = await _lock_enabled_admins(connection) if _may_remove_admin(change) else []
            row = await _get_row(connection, user_id, lock=True)
            user, values = _user(row), _changed_columns(row, change)
            if change.checked_version not in (None, user.credentials_version):
                raise BadCredentials
            if values.keys() & {"role", "disabled_at"} and not allow_last_admin:
                _check_admin_remains(admins, user_id)
            if values:
                statement = update(users).where(users.c.id == user_id).values(**values).returning(users)
                user = _user((await connection.execute(statement)).one())
                if _ends_sessions(row, values):
                    await end_sessions(connection, sessions.c.user_id == user_id, sessions.c.id != (keep_session or ""))
                await _announce(connection, user_id)
            await record(connection, user)
        return user

    async def replace_hash(self, user_id: str, outdated: str, current: str) -> User | None:
        """Store another hash of the same password and return the user. Sessions continue.

        If the stored hash is no longer the outdated one, this changes nothing and returns None.
        """
        unchanged = users.c.id == user_id, users.c.password_hash == outdated
        statement = update(users).where(*unchanged).values(password_hash=current).returning(users)
        async with writing(self._engine) as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _user(row) if row else None

    async def list_image_permissions(self) -> Mapping[str, datetime]:
        """Return the ids of the users whose images may be kept, and since when."""
        statement = select(users.c.id, users.c.images_allowed_since).where(users.c.images_allowed_since.is_not(None))
        async with reading(self._engine) as connection:
            return {row.id: row.images_allowed_since for row in await connection.execute(statement)}

    async def find_image_permission(self, user_id: str) -> datetime | None:
        """Return the time since which a user's images may be kept; None if they may not be, or without such a user."""
        statement = select(users.c.images_allowed_since).where(users.c.id == user_id)
        async with reading(self._engine) as connection:
            since: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
        return since

    async def count(self) -> int:
        async with reading(self._engine) as connection:
            return (await connection.execute(select(func.count()).select_from(users))).scalar_one()


async def lock_for_deletion(connection: AsyncConnection, user_id: str, *, allow_last_admin: bool) -> User:
    """Lock a user's row until the transaction ends, and return the user.

    Raises UserNotFound, and LastAdmin for the only enabled administrator, unless `allow_last_admin`.
    """
    admins = await _lock_enabled_admins(connection)
    user = _user(await _get_row(connection, user_id, lock=True))
    if not allow_last_admin:
        _check_admin_remains(admins, user_id)
    return user


def _check_admin_remains(admins: Sequence[str], removed: str) -> None:
    """Raises LastAdmin if the user is the only enabled administrator."""
    if admins == [removed]:
        raise LastAdmin("Nobody else could administer the gateway. Make another user an admin first.")


def _may_remove_admin(change: UserChange) -> bool:
    return change.role not in {None, Role.ADMIN} or change.disabled is True


async def _lock_enabled_admins(connection: AsyncConnection) -> Sequence[str]:
    """Return the ids of the enabled administrators, locked until the transaction ends.

    The lock serialises the transactions that could remove an administrator, so that two cannot remove the last two.
    """
    enabled = users.c.role == Role.ADMIN.value, users.c.disabled_at.is_(None)
    statement = select(users.c.id).where(*enabled).order_by(users.c.id).with_for_update()
    return (await connection.execute(statement)).scalars().all()


async def _get_row(connection: AsyncConnection, user_id: str, *, lock: bool = False) -> Row[Any]:
    """Return a user's row. Raises UserNotFound.

    Text that cannot be an id is never looked up, because databases reject some characters with an error.
    """
    statement = select(users).where(users.c.id == user_id)
    row = None
    if is_user_id(user_id):
        row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise UserNotFound("There is no such user. List the users to see their ids.")
    return row


def is_user_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _changed_columns(row: Row[Any], change: UserChange) -> dict[str, Any]:
    """Return the new values of the columns that differ from the row. A new password always differs."""
    values: dict[str, Any] = {name: quota for name, quota in change.quotas.items() if quota != getattr(row, name)}
    if change.role is not None and change.role != row.role:
        values["role"] = change.role.value
    if change.disabled is not None and change.disabled == (row.disabled_at is None):
        values["disabled_at"] = datetime.now(UTC) if change.disabled else None
    if change.password_hash is not None:
        values["password_hash"] = change.password_hash
    if change.keep_images is not None and change.keep_images == (row.images_allowed_since is None):
        values["images_allowed_since"] = datetime.now(UTC) if change.keep_images else None
    if change.reset_totp and row.totp_secret is not None:
        values |= {"totp_secret": None, "totp_confirmed_at": None}
    return values


def _ends_sessions(row: Row[Any], values: Mapping[str, Any]) -> bool:
    codes_removed = "totp_secret" in values and row.totp_confirmed_at is not None
    disabled = values.get("disabled_at") is not None
    return codes_removed or disabled or not values.keys().isdisjoint({"role", "password_hash"})


async def _announce(connection: AsyncConnection, user_id: str) -> None:
    """Make every process verify the user's API keys and certificates again."""
    until = datetime.now(UTC) + MAX_ACCESS_TOKEN_LIFETIME
    await announce(connection, f"user:{user_id}", revoked=False, expires_at=until)


def _user(row: Row[Any]) -> User:
    return User(
        row.id,
        row.name,
        Role(row.role),
        row.created_at,
        row.disabled_at,
        row.totp_confirmed_at is not None,
        row.monthly_requests,
        row.monthly_megapixels,
        row.images_allowed_since,
        credentials_version(row.password_hash, row.totp_confirmed_at),
    )

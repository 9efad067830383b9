"""Users as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict
from uuid import UUID, uuid4

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.changes import announce
from auth.errors import LastAdmin, UserExists, UserNotFound
from auth.principal import Role
from auth.sessions import LONGEST_ACCESS, end_sessions
from auth.tables import sessions, users
from storage.transactions import reading, writing


@dataclass(frozen=True, slots=True)
class User:
    """Times are UTC; a user with `disabled_at` cannot log in. `totp`: a log-in needs a one-time code.

    The quotas are for a month; None is without bound.
    """

    id: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    totp: bool = False
    monthly_requests: int | None = None
    monthly_megapixels: int | None = None


class Quotas(TypedDict, total=False):
    """Those that are to be set; None is no bound."""

    monthly_requests: int | None
    monthly_megapixels: int | None


NO_QUOTAS = Quotas()


@dataclass(frozen=True, slots=True)
class UserChange:
    """What becomes other about a user; None leaves it."""

    role: Role | None = None
    disabled: bool | None = None
    password_hash: str | None = field(default=None, repr=False)
    quotas: Quotas = field(default_factory=Quotas)


class UserStore:
    """Every method raises DatabaseUnavailable while the database is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, name: str, role: Role, password_hash: str, quotas: Quotas = NO_QUOTAS) -> User:
        """Raises UserExists."""
        user = User(str(uuid4()), name, role, datetime.now(UTC), None, **quotas)
        row = {"id": user.id, "name": name, "role": role.value, "created_at": user.created_at}
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(users).values(**row, **quotas, password_hash=password_hash))
        except IntegrityError:
            raise UserExists(f"There is already a user {name}. Choose another name.") from None
        return user

    async def find(self, name: str) -> tuple[User, str] | None:
        """Return the user and the password's hash."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(users).where(users.c.name == name))).one_or_none()
        return (_user(row), row.password_hash) if row else None

    async def list(self) -> Sequence[User]:
        """Return all users, by name."""
        async with reading(self._engine) as connection:
            rows = (await connection.execute(select(users).order_by(users.c.name))).all()
        return [_user(row) for row in rows]

    async def get(self, user_id: str) -> User:
        """Raises UserNotFound."""
        async with reading(self._engine) as connection:
            return _user(await _by_id(connection, user_id))

    async def change(self, user_id: str, change: UserChange) -> User:
        """Change a user in one transaction. Another role, a new password and disabling end the user's log-ins.

        Raises UserNotFound, and LastAdmin if nobody were left to administer.
        """
        now = datetime.now(UTC)
        async with writing(self._engine) as connection:
            # Whoever changes an administrator waits for the others who do.
            admins = await _enabled_admins(connection)
            before = _user(await _by_id(connection, user_id, lock=True))
            values = _changed_columns(before, change, now)
            if admins == [user_id] and (values.get("role", Role.ADMIN) != Role.ADMIN or values.get("disabled_at")):
                raise LastAdmin("Nobody else could administer the gateway. Make another user an admin first.")
            if values:
                await connection.execute(update(users).where(users.c.id == user_id).values(**values))
            if values.keys() & {"role", "password_hash"} or values.get("disabled_at"):
                await end_sessions(connection, sessions.c.user_id == user_id)
            await _announce(connection, user_id)
            return _user(await _by_id(connection, user_id))

    async def disable(self, name: str) -> User:
        """End the user's log-ins and refuse further ones; a second call keeps the first time. Raises UserNotFound."""
        return await self._update(name, disabled_at=func.coalesce(users.c.disabled_at, datetime.now(UTC)))

    async def enable(self, name: str) -> User:
        """Raises UserNotFound."""
        return await self._update(name, disabled_at=None)

    async def set_role(self, name: str, role: Role) -> User:
        """End the user's log-ins; the next ones have the new role. Raises UserNotFound."""
        return await self._update(name, role=role.value)

    async def reset_totp(self, name: str) -> User:
        """Let the user log in without a one-time code, and end the log-ins there are. Raises UserNotFound."""
        return await self._update(name, totp_secret=None, totp_confirmed_at=None)

    async def set_password_hash(self, name: str, password_hash: str, keep_session: str | None = None) -> User:
        """End the user's log-ins, but for `keep_session`. Raises UserNotFound."""
        return await self._update(name, keep_session, password_hash=password_hash)

    async def count(self) -> int:
        async with reading(self._engine) as connection:
            return (await connection.execute(select(func.count()).select_from(users))).scalar_one()

    async def _update(self, name: str, keep_session: str | None = None, **values: Any) -> User:
        statement = update(users).where(users.c.name == name).values(**values).returning(users)
        async with writing(self._engine) as connection:
            row = (await connection.execute(statement)).one_or_none()
            if row is None:
                raise UserNotFound(f"There is no user {name}. List the users to see their names.")
            await end_sessions(connection, sessions.c.user_id == row.id, sessions.c.id != (keep_session or ""))
            await _announce(connection, row.id)
        return _user(row)


async def _enabled_admins(connection: AsyncConnection) -> Sequence[str]:
    """Their ids, locked until the transaction ends."""
    enabled = users.c.role == Role.ADMIN.value, users.c.disabled_at.is_(None)
    statement = select(users.c.id).where(*enabled).order_by(users.c.id).with_for_update()
    return (await connection.execute(statement)).scalars().all()


async def _by_id(connection: AsyncConnection, user_id: str, *, lock: bool = False) -> Row[Any]:
    """Raises UserNotFound, also for what is no id: databases choke on some characters."""
    statement = select(users).where(users.c.id == user_id)
    row = None
    if _is_id(user_id):
        row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise UserNotFound("There is no such user. List the users to see their ids.")
    return row


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _announce(connection: AsyncConnection, user_id: str) -> None:
    """The user's API keys and certificates are read anew, everywhere."""
    until = datetime.now(UTC) + LONGEST_ACCESS
    await announce(connection, f"user:{user_id}", revoked=False, expires_at=until)


def _changed_columns(before: User, change: UserChange, now: datetime) -> dict[str, Any]:
    """Only what differs: to say again what holds already ends no log-in."""
    values: dict[str, Any] = {**change.quotas}
    if change.role is not None and change.role != before.role:
        values["role"] = change.role.value
    if change.disabled is not None and change.disabled == (before.disabled_at is None):
        values["disabled_at"] = now if change.disabled else None
    if change.password_hash is not None:
        values["password_hash"] = change.password_hash
    return values


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
    )

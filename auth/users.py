"""Users as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.changes import announce
from auth.database import reading, writing
from auth.errors import UserExists, UserNotFound
from auth.principal import Role
from auth.sessions import LONGEST_ACCESS, end_sessions
from auth.tables import sessions, users


@dataclass(frozen=True, slots=True)
class User:
    """Times are UTC; a user with `disabled_at` cannot log in."""

    id: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None


class UserStore:
    """Every method raises DatabaseUnavailable while the database is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, name: str, role: Role, password_hash: str) -> User:
        """Raises UserExists."""
        user = User(str(uuid4()), name, role, datetime.now(UTC), None)
        row = {"id": user.id, "name": name, "role": role.value, "created_at": user.created_at}
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(users).values(**row, password_hash=password_hash))
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
            row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
        if row is None:
            raise UserNotFound("There is no such user. List the users to see their ids.")
        return _user(row)

    async def disable(self, name: str) -> User:
        """End the user's log-ins and refuse further ones; a second call keeps the first time. Raises UserNotFound."""
        return await self._update(name, disabled_at=func.coalesce(users.c.disabled_at, datetime.now(UTC)))

    async def set_password_hash(self, name: str, password_hash: str, keep_session: str | None = None) -> None:
        """End the user's log-ins, but for `keep_session`. Raises UserNotFound."""
        await self._update(name, keep_session, password_hash=password_hash)

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
            # The user's API keys are read anew.
            until = datetime.now(UTC) + LONGEST_ACCESS
            await announce(connection, f"user:{row.id}", revoked=False, expires_at=until)
        return _user(row)


def _user(row: Row[Any]) -> User:
    return User(row.id, row.name, Role(row.role), row.created_at, row.disabled_at)

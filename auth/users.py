"""Users as rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.database import reaching_database
from auth.errors import UserExists, UserNotFound
from auth.principal import Role
from auth.tables import users


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
            async with self._transaction() as connection:
                await connection.execute(insert(users).values(**row, password_hash=password_hash))
        except IntegrityError:
            raise UserExists(f"There is already a user {name}. Choose another name.") from None
        return user

    async def find(self, name: str) -> tuple[User, str] | None:
        """Return the user and the password's hash."""
        async with self._transaction() as connection:
            row = (await connection.execute(select(users).where(users.c.name == name))).one_or_none()
        return (_user(row), row.password_hash) if row else None

    async def list(self) -> Sequence[User]:
        """Return all users, by name."""
        async with self._transaction() as connection:
            rows = (await connection.execute(select(users).order_by(users.c.name))).all()
        return [_user(row) for row in rows]

    async def disable(self, name: str) -> User:
        """Keep the user from logging in; one who is disabled keeps the first time. Raises UserNotFound."""
        return await self._update(name, disabled_at=func.coalesce(users.c.disabled_at, datetime.now(UTC)))

    async def set_password_hash(self, name: str, password_hash: str) -> None:
        """Raises UserNotFound."""
        await self._update(name, password_hash=password_hash)

    async def count(self) -> int:
        async with self._transaction() as connection:
            return (await connection.execute(select(func.count()).select_from(users))).scalar_one()

    async def _update(self, name: str, **values: Any) -> User:
        statement = update(users).where(users.c.name == name).values(**values).returning(users)
        async with self._transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise UserNotFound(f"There is no user {name}. List the users to see their names.")
        return _user(row)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        with reaching_database():
            async with self._engine.begin() as connection:
                yield connection


def _user(row: Row[Any]) -> User:
    return User(row.id, row.name, Role(row.role), row.created_at, row.disabled_at)

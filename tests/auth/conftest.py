from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher
from auth.accounts.store import User, UserStore
from auth.principal import Role


@pytest.fixture(autouse=True)
def concurrent_writes(patient_sqlite: None) -> None:
    """Many tests of this package write concurrently, and expect no statement to fail."""


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    with closing(PasswordHasher()) as hasher:
        yield hasher


@pytest.fixture
async def user(engine: AsyncEngine) -> User:
    return await UserStore(engine).add("ana", Role.CLIENT, "hash")

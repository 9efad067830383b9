from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User, UserStore
from auth.login.throttle import LoginThrottle
from auth.principal import Role
from tests.auth.login.attempts import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(engine: AsyncEngine, clock: Clock) -> LoginThrottle:
    return LoginThrottle(engine, clock)


@pytest.fixture
async def ada(engine: AsyncEngine) -> User:
    return await UserStore(engine).add("ada", Role.CLIENT, "hash")

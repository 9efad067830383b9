from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserStore
from auth.principal import Principal, Role
from tests.auth.quotas.meter_setup import MeterSetup


@pytest.fixture
async def setup(engine: AsyncEngine) -> MeterSetup:
    user = await UserStore(engine).add("ana", Role.CLIENT, "hash")
    return MeterSetup(engine, Principal(user.id, user.name, user.role, frozenset(), None))

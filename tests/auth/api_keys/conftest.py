from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.auth.api_keys.key_setup import KeySetup


@pytest.fixture
async def setup(engine: AsyncEngine) -> KeySetup:
    return await KeySetup(engine).open()

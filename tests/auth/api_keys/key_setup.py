"""A key store with its owner and a clock, which tests of API keys share."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserChange, UserStore
from auth.api_keys.store import ApiKey, KeyStore, KeyTerms, is_api_key
from auth.authenticator import Authenticator
from auth.changes import ChangeFeed
from auth.errors import InvalidToken
from auth.principal import Principal, Role, Scope

HERE = "127.0.0.1"
EXPIRES_AT = datetime.now(UTC) + timedelta(days=30)
TERMS = KeyTerms("maps", frozenset({Scope.PREDICT}), EXPIRES_AT)


class KeySetup:
    """A key store with an authenticator, the user `ana`, and a clock that the test moves."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.now = time.time()
        self.keys = KeyStore(engine, lambda: self.now)
        self.users = UserStore(engine)
        self.feed = ChangeFeed(engine)
        verifiers = [(is_api_key, self.keys.verify)]
        self.authenticator = Authenticator(verifiers, self.feed, lambda: self.now)

    @property
    def past(self) -> datetime:
        return datetime.fromtimestamp(self.now - 1, UTC)

    async def open(self) -> KeySetup:
        self.owner = (await self.users.add("ana", Role.CLIENT, "hash")).id
        return self

    async def create(self, **changes: Any) -> tuple[ApiKey, str]:
        return await self.keys.create(self.owner, replace(TERMS, **changes))

    async def disable_owner(self) -> None:
        await self.users.change(self.owner, UserChange(disabled=True))

    async def principal(self, key: str, address: str = HERE) -> Principal:
        await self.feed.catch_up()
        return await self.authenticator.authenticate(key, address)

    async def rejects(self, key: str, address: str = HERE) -> str:
        with pytest.raises(InvalidToken) as caught:
            await self.principal(key, address)
        return str(caught.value)

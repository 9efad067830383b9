"""Adding and finding users, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User, UserChange, UserStore
from auth.errors import UserExists, UserNotFound
from auth.principal import Role
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable


@pytest.fixture
def store(engine: AsyncEngine) -> UserStore:
    return UserStore(engine)


async def test_a_user_is_found_as_added(store: UserStore) -> None:
    """A stored user is read back completely, with the hash and a timezone-aware UTC time to the microsecond."""
    before = datetime.now(UTC)
    ada = await store.add("ada", Role.OPERATOR, "$hash")
    assert await store.find("ada") == (ada, "$hash")
    assert await store.get(ada.id) == ada
    assert ada == User(ada.id, "ada", Role.OPERATOR, ada.created_at, None)
    assert before <= ada.created_at <= datetime.now(UTC)
    found = await store.find("ada")
    assert found is not None
    assert found[0].created_at.utcoffset() == timedelta(0)


async def test_times_are_utc_in_any_database_time_zone(engine: AsyncEngine, store: UserStore) -> None:
    """A database session in another time zone returns the same instant, in UTC."""
    ada = await store.add("ada", Role.CLIENT, "$hash")
    if engine.dialect.name == "postgresql":
        async with engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {engine.url.database} SET timezone = 'Asia/Tokyo'"))
        await engine.dispose()
    (found,) = await store.list()
    assert found == ada
    assert found.created_at.tzinfo is UTC


async def test_a_name_is_unique(store: UserStore) -> None:
    """Adding a second user of the same name fails and leaves the first unchanged."""
    ada = await store.add("ada", Role.CLIENT, "$first")
    with pytest.raises(UserExists, match="ada"):
        await store.add("ada", Role.ADMIN, "$second")
    assert await store.find("ada") == (ada, "$first")


async def test_concurrent_additions_of_one_name_create_one_user(store: UserStore) -> None:
    """Names stay unique when eight callers add the same name at once."""
    results = await asyncio.gather(*(store.add("ada", Role.CLIENT, "$h") for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["User"] + ["UserExists"] * 7
    assert await store.count() == 1


async def test_users_are_listed_by_name(store: UserStore) -> None:
    """The list is sorted by name and complete."""
    assert await store.list() == []
    for name in ("grace", "ada", "edsger"):
        await store.add(name, Role.CLIENT, "$h")
    assert [user.name for user in await store.list()] == ["ada", "edsger", "grace"]
    assert await store.count() == 3


async def test_an_unknown_name_finds_nothing(store: UserStore) -> None:
    """Names are matched exactly, never as patterns or SQL."""
    await store.add("ada", Role.CLIENT, "$h")
    for name in ("bob", "Ada", "ad_", "a%", "' OR ''='", ""):
        assert await store.find(name) is None


async def test_an_unknown_id_is_an_error(store: UserStore) -> None:
    """Getting a user by an unknown id raises UserNotFound."""
    await store.add("ada", Role.CLIENT, "$h")
    for user_id in (str(uuid4()), "ada", "", "\0", "\ud800"):
        with pytest.raises(UserNotFound):
            await store.get(user_id)


async def test_an_unreachable_database_raises_one_error(postgres_url: str) -> None:
    """Each method raises DatabaseUnavailable while the database is unreachable."""
    engine = open_engine(postgres_url.replace("test_", "gone_"))
    store = UserStore(engine)
    try:
        for attempt in (
            store.find("ada"),
            store.get(str(uuid4())),
            store.list(),
            store.count(),
            store.change(str(uuid4()), UserChange(disabled=True)),
            store.add("a", Role.CLIENT, "h"),
        ):
            with pytest.raises(DatabaseUnavailable):
                await attempt
    finally:
        await engine.dispose()

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User, UserChange, UserStore
from auth.errors import LastAdmin, UserExists, UserNotFound
from auth.principal import Role
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable


@pytest.fixture
def store(engine: AsyncEngine) -> UserStore:
    return UserStore(engine)


async def test_a_user_is_found_as_added(store: UserStore) -> None:
    """A stored user comes back whole, with the hash and an aware UTC time to the microsecond."""
    before = datetime.now(UTC)
    ada = await store.add("ada", Role.OPERATOR, "$hash")
    assert await store.find("ada") == (ada, "$hash")
    assert ada == User(ada.id, "ada", Role.OPERATOR, ada.created_at, None)
    assert before <= ada.created_at <= datetime.now(UTC)
    found = await store.find("ada")
    assert found is not None
    assert found[0].created_at.utcoffset() == timedelta(0)


async def test_times_are_utc_whatever_the_session_s_zone(engine: AsyncEngine, store: UserStore) -> None:
    """A reader in another time zone sees the same instant, in UTC."""
    ada = await store.add("ada", Role.CLIENT, "$hash")
    if engine.dialect.name == "postgresql":
        async with engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {engine.url.database} SET timezone = 'Asia/Tokyo'"))
        await engine.dispose()
    (found,) = await store.list()
    assert found == ada
    assert found.created_at.tzinfo is UTC


async def test_a_name_is_unique(store: UserStore) -> None:
    """The second user of a name is refused and the first stays."""
    ada = await store.add("ada", Role.CLIENT, "$first")
    with pytest.raises(UserExists, match="ada"):
        await store.add("ada", Role.ADMIN, "$second")
    assert await store.find("ada") == (ada, "$first")


async def test_of_many_who_add_one_name_one_succeeds(store: UserStore) -> None:
    """Uniqueness holds under concurrency."""
    results = await asyncio.gather(*(store.add("ada", Role.CLIENT, "$h") for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["User"] + ["UserExists"] * 7
    assert await store.count() == 1


async def test_users_are_listed_by_name(store: UserStore) -> None:
    """The list is sorted and complete."""
    assert await store.list() == []
    for name in ("grace", "ada", "edsger"):
        await store.add(name, Role.CLIENT, "$h")
    assert [user.name for user in await store.list()] == ["ada", "edsger", "grace"]
    assert await store.count() == 3


async def test_an_unknown_name_finds_nothing(store: UserStore) -> None:
    """Names are matched exactly, and are never patterns or SQL."""
    await store.add("ada", Role.CLIENT, "$h")
    for name in ("bob", "Ada", "ad_", "a%", "' OR ''='", ""):
        assert await store.find(name) is None


async def test_disabling_keeps_the_first_time(store: UserStore) -> None:
    """A disabled user has the time of it; disabling again does not move it, and others are untouched."""
    await store.add("ada", Role.CLIENT, "$h")
    grace = await store.add("grace", Role.CLIENT, "$h")
    disabled = await store.disable("ada")
    assert disabled.disabled_at is not None
    assert disabled.created_at <= disabled.disabled_at <= datetime.now(UTC)
    assert await store.disable("ada") == disabled
    assert await store.find("ada") == (disabled, "$h")
    assert await store.find("grace") == (grace, "$h")


async def test_a_hash_is_replaced(store: UserStore) -> None:
    """Only the named user's hash changes."""
    ada = await store.add("ada", Role.CLIENT, "$old")
    grace = await store.add("grace", Role.CLIENT, "$old")
    await store.set_password_hash("ada", "$new")
    assert await store.find("ada") == (ada, "$new")
    assert await store.find("grace") == (grace, "$old")


async def test_changing_an_unknown_user_is_an_error(store: UserStore) -> None:
    """Nobody is disabled or given a password by mistake."""
    with pytest.raises(UserNotFound):
        await store.disable("ada")
    with pytest.raises(UserNotFound):
        await store.set_password_hash("ada", "$new")


async def test_of_two_admins_who_demote_each_other_one_stays(database_url: str, store: UserStore) -> None:
    """However many demote and disable one another at once, one enabled administrator is left."""
    admins = [await store.add(f"admin{number}", Role.ADMIN, "$h") for number in range(6)]
    other_engine = open_engine(database_url)
    try:
        stores = (store, UserStore(other_engine))
        changes = (UserChange(role=Role.CLIENT), UserChange(disabled=True))
        tries = [stores[i % 2].change(admin.id, changes[i % 2]) for i, admin in enumerate(admins)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    finally:
        await other_engine.dispose()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LastAdmin"] + ["User"] * 5
    left = [user for user in await store.list() if user.role is Role.ADMIN and user.disabled_at is None]
    assert len(left) == 1
    with pytest.raises(LastAdmin):
        await store.change(left[0].id, UserChange(disabled=True))


async def test_a_store_whose_database_is_away_says_so(postgres_url: str) -> None:
    """Each method reports a database that is away by one class."""
    engine = open_engine(postgres_url.replace("test_", "gone_"))
    store = UserStore(engine)
    try:
        for attempt in (
            store.find("ada"),
            store.list(),
            store.count(),
            store.disable("a"),
            store.add("a", Role.CLIENT, "h"),
        ):
            with pytest.raises(DatabaseUnavailable):
                await attempt
    finally:
        await engine.dispose()

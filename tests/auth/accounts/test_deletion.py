"""Deleting users together with all their data, but no other user's."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.deletion import AccountDeletion
from auth.accounts.erasures import LONGEST_REQUEST, PendingErasure, PendingErasures, add_pending_erasure
from auth.accounts.store import User, UserStore
from auth.api_keys.store import KeyStore, KeyTerms
from auth.changes import ChangeFeed
from auth.errors import LastAdmin, LoginThrottled, UserNotFound
from auth.login.throttle import Factor, LoginThrottle
from auth.principal import Role, Scope
from auth.quotas.tallies import key_owner, user_owner
from auth.sessions import SessionStore
from auth.tables import api_keys, known_addresses, login_failures, refresh_tokens, sessions, usage, users

OWN_TABLES = users, sessions, refresh_tokens, api_keys, known_addresses, usage
ADDRESS = "192.0.2.7"


async def add_user_with_everything(engine: AsyncEngine, name: str, role: Role = Role.CLIENT) -> User:
    """Add a user with two sessions, an API key, a known network and usage."""
    user = await UserStore(engine).add(name, role, "$h")
    for _ in range(2):
        await SessionStore(engine, 3600).begin(user.id, user.credentials_version, frozenset({Scope.PREDICT}))
    terms = KeyTerms(name="camera", scopes=frozenset({Scope.PREDICT}), expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    key, _ = await KeyStore(engine).create(user.id, terms)
    throttle = LoginThrottle(engine)
    await throttle.record_success(await throttle.start(name, ADDRESS), user.id)
    async with engine.begin() as connection:
        for owner in (user_owner(user.id), key_owner(key.id)):
            await connection.execute(insert(usage).values(owner=owner, month="2026-11", requests=5, pixels=7))
    return user


async def count_rows(engine: AsyncEngine) -> dict[str, int]:
    async with engine.begin() as connection:
        return {
            table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in OWN_TABLES
        }


async def read_owners(engine: AsyncEngine) -> set[str]:
    async with engine.begin() as connection:
        return set((await connection.execute(select(usage.c.owner))).scalars())


async def test_everything_of_the_user_goes(engine: AsyncEngine) -> None:
    """A deletion removes the user's sessions, refresh tokens, keys, networks and usage, and keeps another user's."""
    await add_user_with_everything(engine, "bob")
    before = await count_rows(engine)
    ana = await add_user_with_everything(engine, "ana")
    assert (await AccountDeletion(engine).delete(ana.id)).name == "ana"
    assert await count_rows(engine) == before
    with pytest.raises(UserNotFound):
        await AccountDeletion(engine).delete(ana.id)


async def test_an_erasure_is_pending_until_it_is_done(engine: AsyncEngine) -> None:
    """A deletion schedules an erasure, which is due once after a minute and then once an hour until it is complete."""
    pending, began_at = PendingErasures(engine), datetime.now(UTC)
    user = await UserStore(engine).add("ana", Role.CLIENT, "$h")
    await AccountDeletion(engine).delete(user.id, "adam")
    assert await pending.take_due(began_at + timedelta(seconds=59)) == []
    due_at = datetime.now(UTC) + timedelta(minutes=1)
    assert await pending.take_due(due_at) == [PendingErasure(user.id, "adam")]
    assert await pending.take_due(due_at + timedelta(minutes=59)) == []
    assert await pending.take_due(due_at + timedelta(hours=1)) == [PendingErasure(user.id, "adam")]
    clock_set_back = due_at - timedelta(days=30)
    assert await pending.take_due(clock_set_back) == [PendingErasure(user.id, "adam")]
    await pending.complete(user.id, due_at + timedelta(hours=1))
    assert await pending.take_due(due_at + timedelta(days=1)) == []


async def test_an_erasure_is_repeated_after_the_longest_request(engine: AsyncEngine) -> None:
    """An erasure that began while requests could still record something stays pending until they have ended."""
    pending, began_at = PendingErasures(engine), datetime.now(UTC)
    user = await UserStore(engine).add("ana", Role.CLIENT, "$h")
    await AccountDeletion(engine).delete(user.id, "adam")
    ended_at = datetime.now(UTC) + LONGEST_REQUEST
    for minutes in (0, 2):
        await pending.complete(user.id, began_at + timedelta(minutes=minutes))
    assert await pending.take_due(began_at + LONGEST_REQUEST - timedelta(seconds=1)) == []
    assert await pending.take_due(ended_at) == [PendingErasure(user.id, "adam")]
    await pending.complete(user.id, ended_at)
    assert await pending.take_due(ended_at + timedelta(days=1)) == []


async def test_a_clock_that_was_set_back_keeps_no_erasure_pending(engine: AsyncEngine) -> None:
    """An erasure is complete if the time of the deletion is far in the future, because the clock was wrong then."""
    pending, now = PendingErasures(engine), datetime.now(UTC)
    user = await UserStore(engine).add("ana", Role.CLIENT, "$h")
    await AccountDeletion(engine).delete(user.id, "adam")
    await pending.complete(user.id, now - timedelta(days=30))
    assert await pending.take_due(now + timedelta(days=1)) == []


async def test_a_pending_erasure_of_a_user_who_exists_is_removed(engine: AsyncEngine) -> None:
    """An erasure that no deletion stored is never due, and is removed."""
    pending, now = PendingErasures(engine), datetime.now(UTC)
    user = await UserStore(engine).add("ana", Role.CLIENT, "$h")
    async with engine.begin() as connection:
        await add_pending_erasure(connection, user.id, "adam", now)
    assert await pending.take_due(now + timedelta(days=1)) == []
    assert await pending.remove_unfounded() == [PendingErasure(user.id, "adam")]
    assert await pending.remove_unfounded() == []


async def test_completing_an_erasure_removes_later_usage(engine: AsyncEngine) -> None:
    """What a request that was running during the deletion has added to the user's and the key's usage is removed."""
    await add_user_with_everything(engine, "bob")
    others = await read_owners(engine)
    user = await add_user_with_everything(engine, "ana")
    owners = await read_owners(engine) - others
    await AccountDeletion(engine).delete(user.id, "adam")
    async with engine.begin() as connection:
        for owner in owners:
            await connection.execute(insert(usage).values(owner=owner, month="2026-11", requests=1, pixels=65536))
    await PendingErasures(engine).complete(user.id, datetime.now(UTC))
    assert (len(owners), await read_owners(engine)) == (2, others)


async def test_credentials_are_revoked_in_every_process(engine: AsyncEngine) -> None:
    """A deletion announces the user and the user's sessions and keys as revoked to every process."""
    ana = await add_user_with_everything(engine, "ana")
    async with engine.begin() as connection:
        session_ids = (await connection.execute(select(sessions.c.id))).scalars().all()
        key_ids = (await connection.execute(select(api_keys.c.id))).scalars().all()
    await AccountDeletion(engine).delete(ana.id)
    feed = ChangeFeed(engine)
    await feed.catch_up()
    targets = [f"user:{ana.id}", *(f"sid:{each}" for each in session_ids), *(f"key:{each}" for each in key_ids)]
    assert len(targets) == 4
    assert all(map(feed.is_revoked, targets))


async def test_the_name_can_be_used_again(engine: AsyncEngine) -> None:
    """A new user with the same name has another id, and inherits neither failed logins nor known networks."""
    ana = await add_user_with_everything(engine, "ana")
    now = datetime.now(UTC)  # frozen, so that the waits do not end
    throttle = LoginThrottle(engine, lambda: now)
    for factor in Factor:
        for _ in range(9):
            with suppress(LoginThrottled):
                await throttle.record_failure(await throttle.start("ana", "203.0.113.1", factor))
    assert (await throttle.start("ana", "198.51.100.1")).early_by_s > 0
    await AccountDeletion(engine).delete(ana.id)
    again = await UserStore(engine).add("ana", Role.CLIENT, "$h")
    assert again.id != ana.id
    attempt = await throttle.start("ana", ADDRESS)
    assert (attempt.last_success_at, attempt.no_failures) == (None, True)
    async with engine.begin() as connection:
        left = (await connection.execute(select(login_failures.c.key))).scalars().all()
    assert set(left).isdisjoint({attempt.counters.account, attempt.counters.pair, attempt.counters.early})


async def test_the_last_administrator_stays(engine: AsyncEngine) -> None:
    """The last enabled administrator cannot be deleted unless that is requested explicitly."""
    adam = await UserStore(engine).add("adam", Role.ADMIN, "$h")
    with pytest.raises(LastAdmin):
        await AccountDeletion(engine).delete(adam.id)
    await UserStore(engine).add("eve", Role.ADMIN, "$h")
    await AccountDeletion(engine).delete(adam.id)
    (eve,) = await UserStore(engine).list()
    await AccountDeletion(engine).delete(eve.id, allow_last_admin=True)
    assert await UserStore(engine).count() == 0

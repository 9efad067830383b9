"""The limit on a user's sessions, the announcements of ended sessions, and changes of a user during a login."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from argon2 import PasswordHasher as Argon2
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import User, UserChange, UserStore
from auth.changes import ChangeFeed
from auth.errors import BadCredentials, InvalidGrant
from auth.principal import Role, Scope
from auth.sessions import MAX_ACCESS_TOKEN_LIFETIME, MAX_SESSIONS, Session, SessionStore
from auth.tables import changes, refresh_tokens, sessions
from tests.auth.login.enrolment import enable_codes

SCOPES = frozenset({Scope.PREDICT})


@pytest.fixture
def store(engine: AsyncEngine) -> SessionStore:
    return SessionStore(engine, lifetime_s=3600)


async def begin(store: SessionStore, user: User) -> Session:
    return await store.begin(user.id, user.credentials_version, SCOPES)


async def add_sessions(engine: AsyncEngine, user: User, count: int, age: timedelta) -> None:
    """Add sessions that were last refreshed `age` ago."""
    issued_at, expires_at = datetime.now(UTC) - age, datetime.now(UTC) + timedelta(days=9)
    session = {"user_id": user.id, "scopes": "predict", "created_at": issued_at, "expires_at": expires_at}
    ids = [str(uuid4()) for _ in range(count)]
    tokens = [{"digest": uuid4().hex, "session_id": each, "created_at": issued_at} for each in ids]
    async with engine.begin() as connection:
        await connection.execute(insert(sessions), [{"id": each, **session} for each in ids])
        await connection.execute(insert(refresh_tokens), tokens)


async def age_tokens(engine: AsyncEngine, age: timedelta) -> None:
    """Make all refresh tokens `age` old."""
    async with engine.begin() as connection:
        await connection.execute(update(refresh_tokens).values(created_at=datetime.now(UTC) - age))


async def test_a_user_has_a_limited_number_of_sessions(engine: AsyncEngine, store: SessionStore, user: User) -> None:
    """A session beyond the limit ends the user's least recently refreshed sessions; other users' sessions continue."""
    other = await UserStore(engine).add("bob", Role.CLIENT, "hash")
    others, forgotten, refreshed = await begin(store, other), await begin(store, user), await begin(store, user)
    await age_tokens(engine, timedelta(hours=2))
    refreshed = await store.rotate(refreshed.refresh_token)
    await add_sessions(engine, user, MAX_SESSIONS - 1, timedelta(hours=1))
    newest = await begin(store, user)
    assert await store.find(forgotten.refresh_token) is None
    for session in (others, refreshed, newest):
        assert await store.find(session.refresh_token) is not None
    live = select(func.count()).where(sessions.c.user_id == user.id, sessions.c.revoked_at.is_(None))
    async with engine.connect() as connection:
        assert (await connection.execute(live)).scalar_one() == MAX_SESSIONS


async def test_each_log_in_ends_some_of_very_many_sessions(
    engine: AsyncEngine, store: SessionStore, user: User
) -> None:
    """A user with far too many sessions from an earlier release can log in, and has fewer after each login."""
    await add_sessions(engine, user, 3 * MAX_SESSIONS, timedelta(hours=2))
    live = select(func.count()).where(sessions.c.user_id == user.id, sessions.c.revoked_at.is_(None))
    counts = []
    for _ in range(3):
        await begin(store, user)
        async with engine.connect() as connection:
            counts.append((await connection.execute(live)).scalar_one())
    assert counts == [2 * MAX_SESSIONS + 1, MAX_SESSIONS + 2, MAX_SESSIONS]


async def test_only_sessions_with_access_tokens_are_announced(
    engine: AsyncEngine, store: SessionStore, user: User
) -> None:
    """The end of a session is announced only if one of its access tokens can still be valid."""
    old, refreshed = await begin(store, user), await begin(store, user)
    await age_tokens(engine, MAX_ACCESS_TOKEN_LIFETIME)
    refreshed = await store.rotate(refreshed.refresh_token)
    await UserStore(engine).change(user.id, UserChange(disabled=True))
    async with engine.connect() as connection:
        targets = set((await connection.execute(select(changes.c.target))).scalars())
    assert targets == {f"sid:{refreshed.id}", f"user:{user.id}"}
    assert await store.find(old.refresh_token) is None


async def test_an_exchange_in_progress_is_announced(engine: AsyncEngine, store: SessionStore, user: User) -> None:
    """When a user is disabled while sessions are being refreshed, each refresh fails or its session is revoked."""
    feed, begun = ChangeFeed(engine), [await begin(store, user) for _ in range(4)]
    await age_tokens(engine, MAX_ACCESS_TOKEN_LIFETIME)
    exchanges = [store.rotate(session.refresh_token) for session in begun]
    change = UserStore(engine).change(user.id, UserChange(disabled=True))
    _, *outcomes = await asyncio.gather(change, *exchanges, return_exceptions=True)
    await feed.catch_up()
    for outcome in outcomes:
        assert isinstance(outcome, InvalidGrant) or (
            isinstance(outcome, Session) and feed.is_revoked(f"sid:{outcome.id}")
        )


@pytest.mark.parametrize("change", ["password", "codes"])
async def test_a_log_in_that_a_change_overtakes_fails(
    engine: AsyncEngine, store: SessionStore, user: User, change: str
) -> None:
    """A login starts no session if the password is changed or codes are enabled after it has checked the password."""
    if change == "password":
        await UserStore(engine).change(user.id, UserChange(password_hash="another hash"))
    else:
        await enable_codes(engine, user)
    with pytest.raises(BadCredentials):
        await begin(store, user)
    assert await begin(store, await UserStore(engine).get(user.id))


async def test_log_ins_that_replace_a_hash_go_on(
    engine: AsyncEngine, store: SessionStore, hasher: PasswordHasher
) -> None:
    """Concurrent logins with a password that release 0.1.0 hashed all start a session."""
    decomposed = "cafe\u0301 walnut ferry"
    await UserStore(engine).add("eva", Role.CLIENT, Argon2().hash(decomposed))
    accounts = AccountService(UserStore(engine), hasher)
    for user in await asyncio.gather(*(accounts.authenticate("eva", decomposed) for _ in range(3))):
        assert await begin(store, user)

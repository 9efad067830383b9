"""Sessions and their refresh tokens, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User, UserChange, UserStore
from auth.errors import BadCredentials, InvalidGrant, RefreshTokenReused, UnknownScope
from auth.login.upkeep import remove_expired
from auth.principal import Scope
from auth.sessions import Session, SessionStore
from auth.tables import changes, users
from storage.transactions import reading

SCOPES = frozenset({Scope.PREDICT, Scope.KEYS_WRITE})


@pytest.fixture
def store(engine: AsyncEngine) -> SessionStore:
    return SessionStore(engine, lifetime_s=3600)


@pytest.fixture
async def session(store: SessionStore, user: User) -> Session:
    return await store.begin(user.id, user.credentials_version, SCOPES)


async def test_a_refresh_token_is_exchanged_for_the_next(store: SessionStore, session: Session) -> None:
    """Each exchange returns a new token of the same session, with the same scopes and expiry."""
    second = await store.rotate(session.refresh_token)
    third = await store.rotate(second.refresh_token)
    assert {session.id} == {second.id, third.id}
    assert (third.scopes, third.expires_at) == (SCOPES, session.expires_at)
    assert len({session.refresh_token, second.refresh_token, third.refresh_token}) == 3


async def test_reuse_ends_the_session(store: SessionStore, session: Session) -> None:
    """Exchanging a refresh token twice ends the whole session, including its newest token."""
    newest = await store.rotate(session.refresh_token)
    with pytest.raises(RefreshTokenReused) as reused:
        await store.rotate(session.refresh_token)
    assert reused.value.session_id == session.id
    with pytest.raises(InvalidGrant):
        await store.rotate(newest.refresh_token)


@pytest.mark.parametrize("scope", ["predict users:admin", "predictions:read", "nonsense"])
async def test_a_rejected_scope_does_not_use_the_token(store: SessionStore, session: Session, scope: str) -> None:
    """A scope that the session lacks is rejected before the exchange, so that the token can still be exchanged."""
    with pytest.raises(UnknownScope):
        await store.rotate(session.refresh_token, None, scope)
    assert (await store.rotate(session.refresh_token, None, "predict")).scopes == SCOPES


async def test_a_reused_token_is_reported_whatever_scope_it_requests(store: SessionStore, session: Session) -> None:
    """Reusing a token ends the session, even if the request is for a scope that the session lacks."""
    newest = await store.rotate(session.refresh_token)
    with pytest.raises(RefreshTokenReused):
        await store.rotate(session.refresh_token, None, "users:admin")
    with pytest.raises(InvalidGrant):
        await store.rotate(newest.refresh_token)


async def test_a_disabled_user_s_token_is_neither_used_nor_reported(
    engine: AsyncEngine, store: SessionStore, user: User, session: Session
) -> None:
    """While a user is disabled, a refresh token is rejected and stays unused, even if its session was not ended."""
    for disabled_at in (session.expires_at, None):
        async with engine.begin() as connection:
            await connection.execute(update(users).where(users.c.id == user.id).values(disabled_at=disabled_at))
        if disabled_at:
            assert await store.find(session.refresh_token) is None
            with pytest.raises(InvalidGrant):
                await store.rotate(session.refresh_token)
    assert (await store.rotate(session.refresh_token)).id == session.id


async def test_concurrent_exchanges_end_the_session(store: SessionStore, session: Session) -> None:
    """Concurrent exchanges of one refresh token yield exactly one successor, and end the session."""
    outcomes = await asyncio.gather(*(store.rotate(session.refresh_token) for _ in range(4)), return_exceptions=True)
    successors = [outcome for outcome in outcomes if isinstance(outcome, Session)]
    assert len(successors) == 1
    assert all(isinstance(outcome, InvalidGrant) for outcome in outcomes if outcome is not successors[0])
    with pytest.raises(InvalidGrant):
        await store.rotate(successors[0].refresh_token)


@pytest.mark.parametrize("token", ["", "atr_", "atr_unknown", "\x00", "\ud800", "x" * 9000])
async def test_an_unknown_token_is_rejected(store: SessionStore, token: str) -> None:
    """A token that was never issued is rejected like any invalid one."""
    with pytest.raises(InvalidGrant):
        await store.rotate(token)
    assert await store.find(token) is None


async def test_an_expired_session_cannot_be_refreshed(engine: AsyncEngine, user: User) -> None:
    """A session ends after its lifetime."""
    store = SessionStore(engine, lifetime_s=0)
    session = await store.begin(user.id, user.credentials_version, SCOPES)
    with pytest.raises(InvalidGrant):
        await store.rotate(session.refresh_token)
    assert await store.find(session.refresh_token) is None


@pytest.mark.parametrize("way", ["disable", "revoke"])
async def test_access_tokens_of_a_session_that_has_just_expired_can_be_revoked(
    engine: AsyncEngine, user: User, way: str
) -> None:
    """An access token may outlive its session. Disabling the user or revoking the refresh token ends it even after the
    expired sessions have been removed.
    """
    store = SessionStore(engine, lifetime_s=0)
    session = await store.begin(user.id, user.credentials_version, SCOPES)
    await remove_expired(engine, datetime.now(UTC))
    if way == "disable":
        await UserStore(engine).change(user.id, UserChange(disabled=True))
    else:
        found = await store.find(session.refresh_token, to_revoke=True)
        assert found is not None
        await store.end(found.session_id)
    async with reading(engine) as connection:
        assert f"sid:{session.id}" in set((await connection.execute(select(changes.c.target))).scalars())


async def test_a_client_s_refresh_token_works_for_that_client_only(store: SessionStore, user: User) -> None:
    """A client's refresh token is rejected from other clients, which does not invalidate it."""
    session = await store.begin(user.id, user.credentials_version, SCOPES, client_id="client-1")
    for other in (None, "client-2"):
        with pytest.raises(InvalidGrant):
            await store.rotate(session.refresh_token, other)
    assert (await store.rotate(session.refresh_token, "client-1")).client_id == "client-1"


async def test_a_disabled_user_cannot_start_a_session(engine: AsyncEngine, store: SessionStore, user: User) -> None:
    """A user who is disabled between the password check and the start of the session gets no session."""
    await UserStore(engine).change(user.id, UserChange(disabled=True))
    with pytest.raises(BadCredentials):
        await store.begin(user.id, user.credentials_version, SCOPES)


async def test_only_digests_are_stored(engine: AsyncEngine, session: Session) -> None:
    """The database contains digests of refresh tokens, not the tokens."""
    async with engine.connect() as connection:
        digests = (await connection.execute(text("SELECT digest FROM refresh_tokens"))).scalars().all()
    assert digests
    assert session.refresh_token not in digests
    assert session.refresh_token not in repr(session)

"""Changing users, and what each change does to their sessions, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pyotp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import NO_CHANGE, Quotas, User, UserChange, UserStore
from auth.changes import ChangeFeed
from auth.errors import BadCredentials, LastAdmin, TotpConflict, UserNotFound
from auth.login.data_keys import new_data_key
from auth.login.totp import OneTimeCodes
from auth.principal import Role, Scope
from auth.sessions import Session, SessionStore
from storage.engine import open_engine
from tests.auth.login.enrolment import enable_codes

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
StartSession = Callable[[User], Awaitable[Session]]


@pytest.fixture
def store(engine: AsyncEngine) -> UserStore:
    return UserStore(engine)


@pytest.fixture
def sessions(engine: AsyncEngine) -> SessionStore:
    return SessionStore(engine, lifetime_s=3600)


@pytest.fixture
async def ada(store: UserStore) -> User:
    """A user who is not an administrator."""
    return await store.add("ada", Role.CLIENT, "$h", Quotas(monthly_requests=5))


@pytest.fixture
async def feed(engine: AsyncEngine) -> ChangeFeed:
    return ChangeFeed(engine)


@pytest.fixture
def start_session(store: UserStore, sessions: SessionStore) -> StartSession:
    async def start(user: User) -> Session:
        version = (await store.get(user.id)).credentials_version
        return await sessions.begin(user.id, version, frozenset({Scope.PREDICT}))

    return start


async def _is_open(sessions: SessionStore, session: Session) -> bool:
    return await sessions.find(session.refresh_token) is not None


async def _has_announced(feed: ChangeFeed) -> bool:
    """Return whether a change was announced since the last call."""
    version = feed.version
    await feed.catch_up()
    return feed.version > version


async def test_a_change_overtakes_another_one(store: UserStore, ada: User) -> None:
    """A change that was authorised with a password fails if that password has been replaced since."""
    first, second = (UserChange(password_hash=new, checked_version=ada.credentials_version) for new in ("$n", "$m"))
    await store.change(ada.id, first)
    with pytest.raises(BadCredentials):
        await store.change(ada.id, second)
    found = await store.find("ada")
    assert found is not None
    assert found[1] == "$n"


async def test_disabling_again_keeps_the_first_time(store: UserStore, ada: User) -> None:
    """A disabled user keeps the time of the first disabling, and other users are unchanged."""
    grace = await store.add("grace", Role.CLIENT, "$h")
    disabled = await store.change(ada.id, UserChange(disabled=True))
    assert disabled.disabled_at is not None
    assert disabled.created_at <= disabled.disabled_at <= datetime.now(UTC)
    assert await store.change(ada.id, UserChange(disabled=True)) == disabled
    assert await store.find("ada") == (disabled, "$h")
    assert await store.find("grace") == (grace, "$h")


async def test_a_password_hash_is_replaced(store: UserStore, ada: User) -> None:
    """A new password hash changes only its own user."""
    grace = await store.add("grace", Role.CLIENT, "$h")
    assert await store.change(ada.id, UserChange(password_hash="$new")) == ada
    assert await store.find("ada") == (ada, "$new")
    assert await store.find("grace") == (grace, "$h")


@pytest.mark.parametrize("user_id", [UNKNOWN_ID, "ada", "", "\0", "\ud800"])
@pytest.mark.parametrize("change", [NO_CHANGE, UserChange(disabled=True), UserChange(password_hash="$new")])
async def test_changing_an_unknown_user_fails(store: UserStore, ada: User, user_id: str, change: UserChange) -> None:
    """Changing an unknown user id raises UserNotFound and changes no user."""
    with pytest.raises(UserNotFound):
        await store.change(user_id, change)
    assert await store.find("ada") == (ada, "$h")


@pytest.mark.parametrize(
    "change", [UserChange(role=Role.AUDITOR), UserChange(disabled=True), UserChange(password_hash="$h")]
)
async def test_sessions_end(
    store: UserStore,
    sessions: SessionStore,
    start_session: StartSession,
    ada: User,
    feed: ChangeFeed,
    change: UserChange,
) -> None:
    """A new role, disabling or a new password ends the user's sessions in every process, and no other user's."""
    session = await start_session(ada)
    other = await start_session(await store.add("grace", Role.CLIENT, "$h"))
    await store.change(ada.id, change)
    assert not await _is_open(sessions, session)
    assert await _is_open(sessions, other)
    await feed.catch_up()
    assert feed.is_revoked(f"sid:{session.id}")


@pytest.mark.parametrize(
    "change",
    [
        NO_CHANGE,
        UserChange(role=Role.CLIENT),
        UserChange(disabled=False),
        UserChange(reset_totp=True),
        UserChange(quotas=Quotas(monthly_requests=5, monthly_megapixels=None)),
        UserChange(role=Role.CLIENT, disabled=False, reset_totp=True, quotas=Quotas(monthly_requests=5)),
    ],
)
async def test_a_change_to_the_current_values_does_nothing(
    store: UserStore,
    sessions: SessionStore,
    start_session: StartSession,
    ada: User,
    feed: ChangeFeed,
    change: UserChange,
) -> None:
    """Setting fields to their current values ends no session and announces no change."""
    session = await start_session(ada)
    assert await store.change(ada.id, change) == ada
    assert await _is_open(sessions, session)
    assert not await _has_announced(feed)


async def test_disabling_a_disabled_user_announces_nothing(store: UserStore, ada: User, feed: ChangeFeed) -> None:
    """Only the first disabling is announced to the other processes."""
    await store.change(ada.id, UserChange(disabled=True))
    assert await _has_announced(feed)
    await store.change(ada.id, UserChange(disabled=True))
    assert not await _has_announced(feed)


async def test_quotas_change_without_ending_sessions(
    store: UserStore, sessions: SessionStore, start_session: StartSession, ada: User
) -> None:
    """A change of quotas keeps the user logged in; an absent quota stays and None removes one."""
    session = await start_session(ada)
    changed = await store.change(ada.id, UserChange(quotas=Quotas(monthly_megapixels=9)))
    assert (changed.monthly_requests, changed.monthly_megapixels) == (5, 9)
    changed = await store.change(ada.id, UserChange(quotas=Quotas(monthly_requests=None)))
    assert (changed.monthly_requests, changed.monthly_megapixels) == (None, 9)
    assert await _is_open(sessions, session)


async def test_a_new_password_can_keep_one_session(
    store: UserStore, sessions: SessionStore, start_session: StartSession, ada: User
) -> None:
    """A new password ends every session but the one to keep."""
    kept, other = await start_session(ada), await start_session(ada)
    await store.change(ada.id, UserChange(password_hash="$new"), keep_session=kept.id)
    assert await _is_open(sessions, kept)
    assert not await _is_open(sessions, other)


async def test_removing_confirmed_codes_ends_sessions(
    engine: AsyncEngine, store: UserStore, sessions: SessionStore, start_session: StartSession, ada: User
) -> None:
    """Removing one-time codes ends the user's sessions; removing them again ends none."""
    await enable_codes(engine, ada, (await start_session(ada)).id)
    session = await start_session(ada)
    assert not (await store.change(ada.id, UserChange(reset_totp=True))).totp
    assert not await _is_open(sessions, session)
    session = await start_session(ada)
    await store.change(ada.id, UserChange(reset_totp=True))
    assert await _is_open(sessions, session)


async def test_removing_an_unconfirmed_secret_ends_no_session(
    engine: AsyncEngine, sessions: SessionStore, store: UserStore, start_session: StartSession, ada: User
) -> None:
    """An unconfirmed one-time code secret is removed without ending sessions."""
    session, codes = await start_session(ada), OneTimeCodes(engine, new_data_key())
    code = pyotp.TOTP((await codes.begin(ada)).secret).now()
    await store.change(ada.id, UserChange(reset_totp=True))
    assert await _is_open(sessions, session)
    with pytest.raises(TotpConflict):
        await codes.confirm(ada, code)


@pytest.mark.parametrize("change", [UserChange(disabled=True), UserChange(role=Role.CLIENT)])
async def test_the_last_administrator_can_be_removed_only_explicitly(
    store: UserStore, ada: User, change: UserChange
) -> None:
    """The last enabled administrator is disabled or demoted only with `allow_last_admin`."""
    root = await store.add("root", Role.ADMIN, "$h")
    disabled_admin = await store.add("old", Role.ADMIN, "$h")
    await store.change(disabled_admin.id, UserChange(disabled=True))
    with pytest.raises(LastAdmin):
        await store.change(root.id, change)
    assert await store.get(root.id) == root
    await store.change(ada.id, change)
    changed = await store.change(root.id, change, allow_last_admin=True)
    assert changed.role is Role.CLIENT or changed.disabled_at is not None


async def test_other_changes_of_the_last_administrator_are_allowed(store: UserStore) -> None:
    """The last administrator can be changed in any way that keeps the role and the account enabled."""
    root = await store.add("root", Role.ADMIN, "$h")
    change = UserChange(role=Role.ADMIN, disabled=False, password_hash="$new", quotas=Quotas(monthly_requests=1))
    assert (await store.change(root.id, change)).monthly_requests == 1


@pytest.mark.parametrize("same_kind", [True, False])
async def test_concurrent_changes_leave_one_administrator(database_url: str, store: UserStore, same_kind: bool) -> None:
    """When six administrators are demoted or disabled concurrently, one enabled administrator is left."""
    admins = [await store.add(f"admin{number}", Role.ADMIN, "$h") for number in range(6)]
    other_engine = open_engine(database_url)
    try:
        stores = (store, UserStore(other_engine))
        changes = (UserChange(role=Role.CLIENT), UserChange(disabled=True))
        attempts = [
            stores[i % 2].change(admin.id, changes[0 if same_kind else i % 2]) for i, admin in enumerate(admins)
        ]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    finally:
        await other_engine.dispose()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LastAdmin"] + ["User"] * 5
    remaining = [user for user in await store.list() if user.role is Role.ADMIN and user.disabled_at is None]
    assert len(remaining) == 1
    with pytest.raises(LastAdmin):
        await store.change(remaining[0].id, UserChange(disabled=True))

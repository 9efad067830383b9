"""Changes of access and their entries in the audit log commit together, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import monitoring
from auth.accounts.deletion import AccountDeletion
from auth.accounts.store import User, UserChange, UserStore
from auth.api_keys.store import KeyStore, KeyTerms
from auth.clients import ClientStore
from auth.errors import RefreshTokenReused, UserNotFound
from auth.principal import Role, Scope
from auth.sessions import SessionStore
from auth.tokens.barred_subjects import BarredSubjects
from monitoring.audit.events import new_event
from monitoring.audit.store import AuditStore
from monitoring.audit.trail import AuditTrail
from monitoring.errors import AuditUnavailable
from storage.migrations import migrate
from storage.transactions import Record
from tests.monitoring.audit.events import read_all

SCOPES = frozenset({Scope.PREDICT})
TERMS = KeyTerms("camera", SCOPES, datetime.now(UTC) + timedelta(days=1))


@pytest.fixture
async def log(engine: AsyncEngine) -> AuditStore:
    """The audit log in the database of auth's tables."""
    await migrate(engine, monitoring.MIGRATIONS)
    return AuditStore(engine)


@pytest.fixture
def trail(log: AuditStore) -> AuditTrail:
    return AuditTrail(log, lambda: None)


@pytest.fixture
async def user(engine: AsyncEngine) -> User:
    return await UserStore(engine).add("ana", Role.CLIENT, "hash")


def recording(trail: AuditTrail, outcome: str) -> Record[object]:
    return lambda connection, _: trail.write_within(connection, new_event("change", outcome))


@asynccontextmanager
async def unwritable(engine: AsyncEngine) -> AsyncIterator[None]:
    """Make the audit log unwritable in the block, which must fail for that reason."""
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_events RENAME TO elsewhere"))
    with pytest.raises(AuditUnavailable):
        yield
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO audit_events"))


async def test_unrecorded_changes_of_a_user_are_undone(engine: AsyncEngine, trail: AuditTrail, user: User) -> None:
    """A user is neither added, changed nor deleted while the audit log cannot be written; later attempts succeed."""
    users, record = UserStore(engine), recording(trail, "user")
    async with unwritable(engine):
        await users.add("bob", Role.CLIENT, "hash", record=record)
    await users.add("bob", Role.CLIENT, "hash", record=record)
    promotion = UserChange(role=Role.OPERATOR)
    async with unwritable(engine):
        await users.change(user.id, promotion, record=record)
    assert (await users.get(user.id)).role == Role.CLIENT
    assert (await users.change(user.id, promotion, record=record)).role == Role.OPERATOR
    deletion = AccountDeletion(engine)
    async with unwritable(engine):
        await deletion.delete(user.id, record=record)
    assert (await users.get(user.id)).role == Role.OPERATOR
    await deletion.delete(user.id, record=record)
    with pytest.raises(UserNotFound):
        await users.get(user.id)
    assert len(await read_all(trail.store)) == 3


async def test_an_unrecorded_refresh_uses_up_no_token(engine: AsyncEngine, trail: AuditTrail, user: User) -> None:
    """A refresh token whose exchange could not be recorded can be exchanged again, and no theft is recorded."""
    sessions, record, reused = SessionStore(engine, 3600), recording(trail, "issued"), recording(trail, "reused")
    async with unwritable(engine):
        await sessions.begin(user.id, user.credentials_version, SCOPES, record=record)
    first = (await sessions.begin(user.id, user.credentials_version, SCOPES, record=record)).refresh_token
    async with unwritable(engine):
        await sessions.rotate(first, record=record, record_reuse=reused)
    second = (await sessions.rotate(first, record=record, record_reuse=reused)).refresh_token
    assert [entry.outcome for entry in await read_all(trail.store)] == ["issued", "issued"]
    async with unwritable(engine):
        await sessions.rotate(first, record=record, record_reuse=reused)
    assert await sessions.find(second) is not None
    with pytest.raises(RefreshTokenReused):
        await sessions.rotate(first, record=record, record_reuse=reused)
    assert await sessions.find(second) is None
    assert [entry.outcome for entry in await read_all(trail.store)] == ["issued", "issued", "reused"]


async def test_an_unrecorded_rotation_keeps_the_secret(engine: AsyncEngine, trail: AuditTrail, user: User) -> None:
    """A key is neither created, rotated nor revoked while the audit log cannot be written."""
    keys, record = KeyStore(engine), recording(trail, "key")
    async with unwritable(engine):
        await keys.create(user.id, TERMS, record=record)
    assert await keys.list(user.id) == []
    key, secret = await keys.create(user.id, TERMS, record=record)
    async with unwritable(engine):
        await keys.rotate(key.id, timedelta(0), record=record)
    await keys.verify(secret)
    _, secret = await keys.rotate(key.id, timedelta(0), record=record)
    async with unwritable(engine):
        await keys.revoke(key.id, record=record)
    assert (await keys.verify(secret)).principal.key_id == key.id


async def test_unrecorded_changes_of_clients_are_undone(engine: AsyncEngine, trail: AuditTrail) -> None:
    """A client's secret, its state and the list of barred users do not change while the log cannot be written."""
    clients, barred, record = ClientStore(engine), BarredSubjects(engine), recording(trail, "client")
    client, secret = await clients.add("maps", SCOPES, record=record)
    for change in (clients.disable, clients.rotate_secret, clients.delete):
        async with unwritable(engine):
            await change("maps", record=record)
    assert await clients.authenticate(client.id, secret) == client
    async with unwritable(engine):
        await barred.bar("https://id.example", "eve", record=record)
    assert await barred.list() == []


async def test_an_entry_is_undone_with_its_change(engine: AsyncEngine, trail: AuditTrail, user: User) -> None:
    """An entry whose transaction fails afterwards is not in the log."""

    async def record(connection: AsyncConnection, _: User) -> None:
        await trail.write_within(connection, new_event("user", "changed"))
        raise LookupError

    with pytest.raises(LookupError):
        await UserStore(engine).change(user.id, UserChange(role=Role.OPERATOR), record=record)
    assert await read_all(trail.store) == []


async def test_simultaneous_changes_are_all_recorded(engine: AsyncEngine, trail: AuditTrail, user: User) -> None:
    """Concurrent changes of users and writes of rejections neither block each other nor break the chain."""
    users, record = UserStore(engine), recording(trail, "added")

    async def write_refusals() -> None:
        for _ in range(8):
            trail.record_refusal(new_event("access", "invalid"))
            await trail.flush()

    added = [users.add(f"user-{index}", Role.CLIENT, "hash", record=record) for index in range(8)]
    changed = [users.change(user.id, UserChange(disabled=index % 2 == 0), record=record) for index in range(4)]
    await asyncio.gather(*added, *changed, write_refusals())
    report = await trail.store.verify()
    assert (report.problems, report.entries) == ([], 20)

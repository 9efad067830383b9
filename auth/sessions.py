"""Sessions: a session is one login with the family of its refresh tokens (RFC 9700, section 4.14)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from msgspec import Struct
from sqlalchemy import Row, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.accounts.credentials import credentials_version
from auth.changes import announce
from auth.errors import BadCredentials, InvalidGrant, RefreshTokenReused
from auth.principal import ROLE_SCOPES, Role, Scope, format_scopes, parse_scopes, select_scopes
from auth.tables import refresh_tokens, sessions, users
from auth.tokens.digests import hash_text
from storage.transactions import Record, reading, record_nothing, writing

REFRESH_PREFIX = "atr_"
# No access token lives longer, so a revocation can be dropped after this time.
MAX_ACCESS_TOKEN_LIFETIME = timedelta(hours=1, minutes=5)
MAX_SESSIONS = 1000  # of one user


@dataclass(frozen=True, slots=True)
class Session:
    """A session of an enabled user, with the user's current name and role.

    `refresh_token` is the newest of the family; the database stores only its digest.
    """

    id: str
    user_id: str
    user_name: str
    role: Role
    client_id: str | None
    scopes: frozenset[Scope]
    expires_at: datetime
    refresh_token: str = field(repr=False)

    def select_scopes(self, requested: str) -> frozenset[Scope]:
        """Select the requested scopes from those that both the login and the role grant. Raises UnknownScope."""
        return select_scopes(self.scopes & ROLE_SCOPES[self.role], requested)


class RefreshToken(Struct, frozen=True):
    """A refresh token of a session that has not ended."""

    session_id: str
    user_id: str
    client_id: str | None
    scopes: frozenset[Scope]
    issued_at: datetime
    expires_at: datetime


class SessionStore:
    """Stores sessions. Every method raises DatabaseUnavailable.

    Methods that change something call `record` in the same transaction.
    """

    def __init__(self, engine: AsyncEngine, lifetime_s: int) -> None:
        self._engine = engine
        self._lifetime = timedelta(seconds=lifetime_s)

    async def begin(
        self,
        user_id: str,
        checked_version: str,
        scopes: frozenset[Scope],
        client_id: str | None = None,
        *,
        record: Record[Session] = record_nothing,
    ) -> Session:
        """Start a session for a user who has logged in, through the client if one is given.

        `checked_version` is the version of the credentials that the login has checked. If the user has MAX_SESSIONS,
        the least recently refreshed one ends.

        Raises BadCredentials if the user was disabled or the credentials changed in the meantime.
        """
        now = datetime.now(UTC)
        async with writing(self._engine) as connection:
            # The lock delays other changes of the user until this session exists, so that they can end it.
            enabled = select(users).where(users.c.id == user_id, users.c.disabled_at.is_(None))
            user = (await connection.execute(enabled.with_for_update(key_share=True))).one_or_none()
            if user is None or credentials_version(user.password_hash, user.totp_confirmed_at) != checked_version:
                raise BadCredentials
            await _end_surplus(connection, user_id, now)
            session = Session(
                str(uuid4()),
                user_id,
                user.name,
                Role(user.role),
                client_id,
                scopes,
                now + self._lifetime,
                _new_token(),
            )
            row = {"id": session.id, "user_id": user_id, "client_id": client_id, "scopes": format_scopes(scopes)}
            times = {"created_at": now, "expires_at": session.expires_at}
            await connection.execute(insert(sessions).values(**row, **times))
            await _add_token(connection, session.refresh_token, session.id, now)
            await record(connection, session)
        return session

    async def rotate(
        self,
        refresh_token: str,
        client_id: str | None = None,
        requested_scope: str = "",
        *,
        record: Record[Session] = record_nothing,
        record_reuse: Record[Session] = record_nothing,
    ) -> Session:
        """Exchange a refresh token for its successor, to issue an access token with the requested scopes.

        Raises InvalidGrant for a token that is unknown, expired, revoked or another client's, or whose user is
        disabled. Raises UnknownScope, after which the token can still be exchanged. A token that was exchanged before
        indicates a stolen copy: the whole session ends, `record_reuse` is called, and RefreshTokenReused is raised.
        """
        now = datetime.now(UTC)
        async with writing(self._engine) as connection:
            row = await _find(connection, refresh_token, lock=True)
            if row is None or _is_over(row, now) or row.client_id != client_id:
                raise InvalidGrant
            session = _renew(row)
            if row.used_at is None:
                session.select_scopes(requested_scope)
            unused = refresh_tokens.c.digest == row.digest, refresh_tokens.c.used_at.is_(None)
            used = await connection.execute(update(refresh_tokens).where(*unused).values(used_at=now))
            reused = used.rowcount == 0
            if reused:
                await end_sessions(connection, sessions.c.id == row.id)
                await record_reuse(connection, session)
            else:
                await _add_token(connection, session.refresh_token, row.id, now)
                await record(connection, session)
        if reused:
            raise RefreshTokenReused(row.id, row.user_id)
        return session

    async def find(self, refresh_token: str, *, to_revoke: bool = False) -> RefreshToken | None:
        """Return a refresh token that could be exchanged now, or None.

        With `to_revoke`, also return one that was exchanged before, or whose session has expired so recently that an
        access token of it may still be valid.
        """
        now = datetime.now(UTC)
        async with reading(self._engine) as connection:
            row = await _find(connection, refresh_token)
        if row is None or (row.used_at and not to_revoke):
            return None
        if _is_over(row, now - MAX_ACCESS_TOKEN_LIFETIME if to_revoke else now):
            return None
        return RefreshToken(row.id, row.user_id, row.client_id, parse_scopes(row.scopes), row.issued_at, row.expires_at)

    async def end(self, session_id: str, *, record: Record[None] = record_nothing) -> None:
        """End a session: its refresh token and its access tokens become invalid."""
        async with writing(self._engine) as connection:
            await end_sessions(connection, sessions.c.id == session_id)
            await record(connection, None)

    async def revoke_access_token(self, token_id: str, *, record: Record[None] = record_nothing) -> None:
        """Revoke one access token, by its `jti`."""
        async with writing(self._engine) as connection:
            await announce(
                connection, f"jti:{token_id}", revoked=True, expires_at=datetime.now(UTC) + MAX_ACCESS_TOKEN_LIFETIME
            )
            await record(connection, None)


async def end_sessions(connection: AsyncConnection, *conditions: Any) -> None:
    """End the sessions that the conditions select, in the caller's transaction.

    Only sessions with a recent refresh token are announced: others have no valid access token, because each access
    token is issued together with a refresh token.
    """
    now = datetime.now(UTC)
    statement = update(sessions).where(*conditions, sessions.c.revoked_at.is_(None)).values(revoked_at=now)
    if (await connection.execute(statement)).rowcount == 0:
        return
    # The update waits for token exchanges in progress; only a later statement sees their refresh tokens. That statement
    # may also return sessions that another transaction has just ended: they are announced twice.
    recent = refresh_tokens.c.created_at > now - MAX_ACCESS_TOKEN_LIFETIME
    issued = exists().where(refresh_tokens.c.session_id == sessions.c.id, recent)
    ended = await connection.execute(select(sessions.c.id).where(sessions.c.revoked_at >= now, issued))
    targets = [f"sid:{session_id}" for session_id in ended.scalars()]
    await announce(connection, *targets, revoked=True, expires_at=now + MAX_ACCESS_TOKEN_LIFETIME)


async def _end_surplus(connection: AsyncConnection, user_id: str, now: datetime) -> None:
    """End the user's least recently refreshed sessions, so that another one can begin. The user must be locked.

    An earlier release allowed thousands of sessions. Ending them all at once could exceed the time limit, so each
    login ends at most MAX_SESSIONS.
    """
    live = sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None), sessions.c.expires_at > now
    count = (await connection.execute(select(func.count()).select_from(sessions).where(*live))).scalar_one()
    if count < MAX_SESSIONS:
        return
    longest_unused = (
        select(refresh_tokens.c.session_id)
        .join(sessions)
        .where(*live, refresh_tokens.c.used_at.is_(None))
        .order_by(refresh_tokens.c.created_at)
        .limit(min(count - MAX_SESSIONS + 1, MAX_SESSIONS))
        .correlate(None)
    )
    await end_sessions(connection, sessions.c.id.in_(longest_unused))


async def _find(connection: AsyncConnection, refresh_token: str, *, lock: bool = False) -> Row[Any] | None:
    """Return the session's row with columns of the token and the user; `lock` locks it until the transaction ends.

    The lookup is by digest, so its duration reveals nothing about the token.
    """
    token = refresh_tokens.c
    statement = (
        select(sessions, token.digest, token.used_at, token.created_at.label("issued_at"))
        .add_columns(users.c.name, users.c.role, users.c.disabled_at)
        .join(sessions, token.session_id == sessions.c.id)
        .join(users, sessions.c.user_id == users.c.id)
        .where(token.digest == hash_text(refresh_token))
    )
    if lock:
        statement = statement.with_for_update(key_share=True, of=sessions)
    return (await connection.execute(statement)).one_or_none()


def _is_over(row: Row[Any], now: datetime) -> bool:
    return row.revoked_at is not None or row.disabled_at is not None or row.expires_at <= now


def _renew(row: Row[Any]) -> Session:
    return Session(
        row.id,
        row.user_id,
        row.name,
        Role(row.role),
        row.client_id,
        parse_scopes(row.scopes),
        row.expires_at,
        _new_token(),
    )


async def _add_token(connection: AsyncConnection, token: str, session_id: str, now: datetime) -> None:
    row = {"digest": hash_text(token), "session_id": session_id, "created_at": now}
    await connection.execute(insert(refresh_tokens).values(**row))


def _new_token() -> str:
    return REFRESH_PREFIX + secrets.token_urlsafe(32)

"""Deletes users together with all their rows in the tables of this package."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Delete, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.accounts.erasures import add_pending_erasure
from auth.accounts.store import User, lock_for_deletion
from auth.changes import announce
from auth.login.throttle import list_counter_keys
from auth.quotas.tallies import key_owner, user_owner
from auth.sessions import MAX_ACCESS_TOKEN_LIFETIME, end_sessions
from auth.tables import api_keys, known_addresses, login_failures, refresh_tokens, sessions, usage, users
from storage.transactions import Record, record_nothing, writing


class AccountDeletion:
    """Deletes users. Every method raises DatabaseUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def delete(
        self,
        user_id: str,
        actor: str = "",
        *,
        allow_last_admin: bool = False,
        record: Record[User] = record_nothing,
    ) -> User:
        """Delete a user with all sessions, refresh tokens, API keys, one-time codes, failed logins and usage.

        Every process rejects the user's credentials within a second. A later user with the same name gets a new id and
        inherits nothing. The caller must then erase the user's records on behalf of `actor`; until that is complete,
        the erasure is stored as pending. Raises UserNotFound, and LastAdmin unless `allow_last_admin`.
        """
        async with writing(self._engine) as connection:
            user = await lock_for_deletion(connection, user_id, allow_last_admin=allow_last_admin)
            keys = select(api_keys.c.id).where(api_keys.c.user_id == user_id)
            # Locked in the order in which all transactions that change several keys lock them.
            locked = await connection.execute(keys.order_by(api_keys.c.id).with_for_update())
            key_ids = locked.scalars().all()
            await end_sessions(connection, sessions.c.user_id == user_id)
            await self._announce(connection, user_id, key_ids)
            for statement in await _build_statements(connection, user, key_ids):
                await connection.execute(statement)
            await add_pending_erasure(connection, user_id, actor, datetime.now(UTC))
            await record(connection, user)
        return user

    async def _announce(self, connection: AsyncConnection, user_id: str, key_ids: Sequence[str]) -> None:
        targets = [f"user:{user_id}", *(f"key:{key_id}" for key_id in key_ids)]
        await announce(connection, *targets, revoked=True, expires_at=datetime.now(UTC) + MAX_ACCESS_TOKEN_LIFETIME)


async def _build_statements(connection: AsyncConnection, user: User, key_ids: Sequence[str]) -> Sequence[Delete]:
    """Return the statements that delete the user's rows, in an order that violates no foreign key."""
    networks = select(known_addresses.c.address).where(known_addresses.c.user_id == user.id)
    counters = list_counter_keys(user.name, (await connection.execute(networks)).scalars().all())
    own_sessions = select(sessions.c.id).where(sessions.c.user_id == user.id)
    owners = [user_owner(user.id), *map(key_owner, key_ids)]
    conditions: Sequence[tuple[Any, Any]] = (
        (refresh_tokens, refresh_tokens.c.session_id.in_(own_sessions)),
        (sessions, sessions.c.user_id == user.id),
        (api_keys, api_keys.c.user_id == user.id),
        (known_addresses, known_addresses.c.user_id == user.id),
        (login_failures, login_failures.c.key.in_(counters)),
        (usage, usage.c.owner.in_(owners)),
        (users, users.c.id == user.id),
    )
    return [delete(table).where(condition) for table, condition in conditions]

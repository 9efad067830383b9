"""Pending erasures of deleted users' records: each stays in the database until it is complete, so that none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from sqlalchemy import delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.quotas.tallies import user_owner
from auth.tables import pending_erasures, usage, users
from storage.transactions import writing

FIRST_RETRY_AFTER = timedelta(minutes=1)
RETRY_AFTER = timedelta(hours=1)


class PendingErasure(Struct, frozen=True):
    """A deleted user whose records must be erased, and the subject who deleted the user."""

    user_id: str
    actor: str


class PendingErasures:
    """Stores the pending erasures. Every method raises DatabaseUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def take_due(self, now: datetime) -> Sequence[PendingErasure]:
        """Return the erasures that are due, and reserve them for this process for an hour."""
        columns = pending_erasures.c
        # The second condition holds if a clock was set back.
        due = or_(columns.due_at <= now, columns.due_at > now + RETRY_AFTER)
        founded = ~exists().where(users.c.id == columns.user_id)  # PostgreSQL would read all users for NOT IN
        taken = update(pending_erasures).where(due, founded).values(due_at=now + RETRY_AFTER)
        async with writing(self._engine) as connection:
            rows = (await connection.execute(taken.returning(columns.user_id, columns.actor))).all()
        return [PendingErasure(row.user_id, row.actor) for row in rows]

    async def remove_unfounded(self) -> Sequence[PendingErasure]:
        """Remove and return the erasures of users who exist: no deletion stored them."""
        columns = pending_erasures.c
        unfounded = delete(pending_erasures).where(columns.user_id.in_(select(users.c.id)))
        async with writing(self._engine) as connection:
            rows = (await connection.execute(unfounded.returning(columns.user_id, columns.actor))).all()
        return [PendingErasure(row.user_id, row.actor) for row in rows]

    async def complete(self, user_id: str) -> None:
        """Remove a completed erasure, and the user's usage that requests running during the deletion have added."""
        async with writing(self._engine) as connection:
            await connection.execute(delete(pending_erasures).where(pending_erasures.c.user_id == user_id))
            await connection.execute(delete(usage).where(usage.c.owner == user_owner(user_id)))


async def add_pending_erasure(connection: AsyncConnection, user_id: str, actor: str, now: datetime) -> None:
    """Store an erasure in the transaction that deletes the user. The caller attempts it at once, before it is due."""
    row = {"user_id": user_id, "actor": actor, "due_at": now + FIRST_RETRY_AFTER}
    await connection.execute(insert(pending_erasures).values(**row))

"""Pending erasures of deleted users' records: each stays in the database until it is complete, so that none is lost.

That includes records that requests running during the deletion write later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from sqlalchemy import delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.quotas.tallies import select_deleted_keys, user_owner
from auth.tables import pending_erasures, usage, users
from storage.transactions import reading, writing

FIRST_RETRY_AFTER = timedelta(minutes=1)
RETRY_AFTER = timedelta(hours=1)
_MAX_KEYS = 1000  # whose usage one erasure removes; the next removes that of others
LONGEST_REQUEST = timedelta(minutes=45)
"""No request runs longer: waiting for memory and its deadline take at most MODEL__DEADLINE_SECONDS (300) each, the last
image MODEL__STUCK_SECONDS (600), and the upload some minutes. The rest allows for clocks that differ."""


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

    async def complete(self, user_id: str, began_at: datetime) -> None:
        """Remove an erasure that began at `began_at`, and usage that requests running during the deletion have added.

        Until LONGEST_REQUEST after the deletion, such requests may still record something. Until then the erasure stays
        pending, and becomes due at the end of that time.
        """
        own = pending_erasures.c.user_id == user_id
        # Found before the transaction, because predictions cannot be recorded in SQLite during it.
        async with reading(self._engine) as connection:
            of_deleted_keys = select(usage.c.owner).where(select_deleted_keys()).distinct().limit(_MAX_KEYS)
            owners = [user_owner(user_id), *(await connection.execute(of_deleted_keys)).scalars()]
        async with writing(self._engine) as connection:
            deleted_at = (await connection.execute(select(pending_erasures.c.deleted_at).where(own))).scalar()
            # A time far in the future was written before a clock was set back.
            if deleted_at is not None and abs(began_at - deleted_at) < LONGEST_REQUEST:
                repeated = update(pending_erasures).where(own).values(due_at=deleted_at + LONGEST_REQUEST)
                await connection.execute(repeated)
            else:
                await connection.execute(delete(pending_erasures).where(own))
            await connection.execute(delete(usage).where(usage.c.owner.in_(owners)))


async def add_pending_erasure(connection: AsyncConnection, user_id: str, actor: str, now: datetime) -> None:
    """Store an erasure in the transaction that deletes the user. The caller attempts it at once, before it is due."""
    row = {"user_id": user_id, "actor": actor, "due_at": now + FIRST_RETRY_AFTER, "deleted_at": now}
    await connection.execute(insert(pending_erasures).values(**row))

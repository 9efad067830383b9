"""Finds the API keys that were created with another API key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.tables import api_keys


async def find_unrevoked_descendants(connection: AsyncConnection, key_id: str, user_id: str) -> Sequence[str]:
    """Return the ids of the user's unrevoked keys that were created with a key, directly or through others.

    Intermediate keys may be revoked. Locks all keys of the user.
    """
    # A key has the same owner as its parent. All transactions that change several keys lock them in the order of their
    # ids, so that they cannot deadlock.
    statement = select(api_keys.c.id, api_keys.c.parent_id, api_keys.c.revoked_at).where(api_keys.c.user_id == user_id)
    children, unrevoked = defaultdict[str | None, list[str]](list), set[str]()
    for row in await connection.execute(statement.order_by(api_keys.c.id).with_for_update()):
        children[row.parent_id].append(row.id)
        if row.revoked_at is None:
            unrevoked.add(row.id)
    descendants = list(children[key_id])
    for descendant in descendants:  # the list grows during the loop
        descendants += children[descendant]
    return [descendant for descendant in descendants if descendant in unrevoked]

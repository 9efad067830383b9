"""Removes expired rows: sessions, failed logins, known networks and announced changes.

One process at a time does this every hour, while it serves requests, and therefore in short transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import structlog
from sqlalchemy import ColumnElement, Table, delete, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.login.throttle import KNOWN_NETWORK_LIFETIME, RESET_AFTER
from auth.sessions import MAX_ACCESS_TOKEN_LIFETIME
from auth.tables import changes, known_addresses, login_failures, refresh_tokens, sessions, upkeep
from storage.engine import dialect_insert
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

INTERVAL = timedelta(hours=1)
FIRST_CHECK_S = 2.0  # after the process starts, so that the check does not delay the start
CHECK_EVERY_S = 300.0
_BATCH = 1000  # rows in one transaction, for which other transactions may have to wait
_PAUSE_S = 0.02

log = structlog.get_logger("atalaya.upkeep")


async def follow_upkeep(engine: AsyncEngine, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Remove what has expired once an hour, if no other process does, until cancelled."""
    await sleep(FIRST_CHECK_S)
    while True:
        try:
            if await claim_upkeep(engine, datetime.now(UTC)):
                removed = dict(await remove_expired(engine, datetime.now(UTC)))
                # Values of a field whose name contains `token` are masked, as if they were credentials.
                log.info("expired_rows_removed", refreshes=removed.pop(refresh_tokens.name), **removed)
        except DatabaseUnavailable:
            log.warning("upkeep_postponed", reason="the database is unavailable")
        except Exception:  # a bug must not end the upkeep forever
            log.exception("upkeep_failed")
        await sleep(CHECK_EVERY_S)


class Duty(IntEnum):
    """A task that one process at a time does every hour."""

    EXPIRED_ROWS = 1
    KEPT_IMAGES = 2


async def claim_upkeep(engine: AsyncEngine, now: datetime, duty: Duty = Duty.EXPIRED_ROWS) -> bool:
    """Claim the duty if it is due; return whether the caller must do it now. Raises DatabaseUnavailable."""
    last = upkeep.c.last_at
    # The second condition holds if a clock was set back.
    due = or_(last <= now - INTERVAL, last > now + INTERVAL)
    claim = dialect_insert(upkeep, engine.dialect).values(id=duty.value, last_at=now)
    claim = claim.on_conflict_do_update(index_elements=[upkeep.c.id], set_={"last_at": now}, where=due)
    async with writing(engine) as connection:
        return (await connection.execute(claim.returning(upkeep.c.id))).one_or_none() is not None


async def remove_expired(engine: AsyncEngine, now: datetime) -> Mapping[str, int]:
    """Remove the rows that have expired at `now`; return the number of each kind. Raises DatabaseUnavailable.

    Used refresh tokens stay as long as their session, because their second use must be recognised. An ended session
    stays as long as its access tokens may be valid, so that disabling or deleting the user revokes them.
    """
    before = now - MAX_ACCESS_TOKEN_LIFETIME
    ended = or_(sessions.c.expires_at <= before, sessions.c.revoked_at <= before)
    of_ended = refresh_tokens.c.session_id.in_(select(sessions.c.id).where(ended))
    expired: Mapping[Table, ColumnElement[bool]] = {
        refresh_tokens: of_ended,  # before the sessions, whose removal would cascade to any number of tokens
        sessions: ended,
        changes: changes.c.expires_at <= now,
        login_failures: login_failures.c.last_at <= now - RESET_AFTER,
        known_addresses: known_addresses.c.last_at <= now - KNOWN_NETWORK_LIFETIME,
    }
    return {table.name: await _delete_in_batches(engine, table, condition) for table, condition in expired.items()}


async def _delete_in_batches(engine: AsyncEngine, table: Table, condition: ColumnElement[bool]) -> int:
    columns = table.primary_key.columns
    # Rows that a request has locked are left for the next time: waiting for them could cause a deadlock.
    batch = select(*columns).where(condition).limit(_BATCH).with_for_update(skip_locked=True)
    statement = delete(table).where(tuple_(*columns).in_(batch))
    total = 0
    while True:
        async with writing(engine) as connection:
            removed = (await connection.execute(statement)).rowcount
        total += removed
        if removed < _BATCH:
            return total
        await asyncio.sleep(_PAUSE_S)

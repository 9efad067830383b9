"""Removing expired rows from the auth tables, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.login.upkeep import INTERVAL, claim_upkeep, remove_expired
from auth.tables import changes, known_addresses, login_failures, refresh_tokens, sessions, users
from storage.transactions import reading, writing

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGO = {"minutes": NOW - timedelta(minutes=5), "hours": NOW - timedelta(hours=5), "days": NOW - timedelta(days=40)}
AHEAD = NOW + timedelta(days=1)


async def add(engine: AsyncEngine, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    async with writing(engine) as connection:
        await connection.execute(insert(table), rows)


async def count(engine: AsyncEngine, table: Table) -> int:
    async with reading(engine) as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def add_user(engine: AsyncEngine) -> None:
    user = {"id": "user", "name": "ana", "role": "client", "password_hash": "", "created_at": AGO["days"]}
    await add(engine, users, [user])


def make_session(name: str, expires_at: datetime, revoked_at: datetime | None = None) -> dict[str, Any]:
    times = {"created_at": AGO["days"], "expires_at": expires_at, "revoked_at": revoked_at}
    return {"id": name, "user_id": "user", "scopes": "predict", **times}


async def read_column(engine: AsyncEngine, column: Any) -> set[str]:
    async with reading(engine) as connection:
        return set((await connection.execute(select(column))).scalars())


async def test_ended_sessions_are_removed_with_their_tokens(engine: AsyncEngine) -> None:
    """Expired and revoked sessions disappear when their access tokens have expired; others keep their tokens."""
    await add_user(engine)
    rows = [
        make_session("live", AHEAD),
        make_session("just revoked", AHEAD, AGO["minutes"]),
        make_session("revoked", AHEAD, AGO["hours"]),
        make_session("just expired", AGO["minutes"]),
        make_session("expired", AGO["hours"]),
    ]
    await add(engine, sessions, rows)
    tokens = [
        {
            "digest": f"{row['id']} {number}",
            "session_id": row["id"],
            "created_at": AGO["hours"],
            "used_at": AGO["hours"],
        }
        for row in rows
        for number in range(2)
    ]
    await add(engine, refresh_tokens, tokens)
    removed = await remove_expired(engine, NOW)
    assert await read_column(engine, sessions.c.id) == {"live", "just revoked", "just expired"}
    assert await read_column(engine, refresh_tokens.c.session_id) == {"live", "just revoked", "just expired"}
    assert (removed["sessions"], removed["refresh_tokens"]) == (2, 4)


async def test_expired_changes_and_failures_are_removed(engine: AsyncEngine) -> None:
    """Expired changes, failures that no longer count and networks that are no longer known are removed; others stay."""
    await add_user(engine)
    change = {"revoked": 1, "target": "jti:1"}
    await add(
        engine, changes, [{"seq": 1, "expires_at": AGO["minutes"], **change}, {"seq": 2, "expires_at": AHEAD, **change}]
    )
    failures = [{"key": name, "failures": 3, "last_at": AGO[name]} for name in ("minutes", "hours")]
    await add(engine, login_failures, failures)
    networks = [{"user_id": "user", "address": name, "last_at": AGO[name]} for name in ("hours", "days")]
    await add(engine, known_addresses, networks)
    removed = await remove_expired(engine, NOW)
    assert removed == {"refresh_tokens": 0, "sessions": 0, "changes": 1, "login_failures": 1, "known_addresses": 1}
    assert await read_column(engine, login_failures.c.key) == {"minutes"}
    assert await read_column(engine, known_addresses.c.address) == {"hours"}
    assert await count(engine, changes) == 1


async def test_any_number_of_rows_is_removed(engine: AsyncEngine) -> None:
    """All expired rows are removed, even if they are more than one transaction removes."""
    await add(engine, login_failures, [{"key": str(n), "failures": 1, "last_at": AGO["hours"]} for n in range(2500)])
    assert (await remove_expired(engine, NOW))["login_failures"] == 2500
    assert await count(engine, login_failures) == 0


@pytest.mark.parametrize(
    ("later", "claimed"),
    [(timedelta(0), False), (INTERVAL / 2, False), (INTERVAL, True), (-INTERVAL / 2, False), (-2 * INTERVAL, True)],
    ids=["at once", "early", "due", "clock slightly back", "clock far back"],
)
async def test_upkeep_is_due_once_an_hour(engine: AsyncEngine, later: timedelta, claimed: bool) -> None:
    """Exactly one of several concurrent processes claims the upkeep, which can be claimed again after an hour."""
    first = await asyncio.gather(*(claim_upkeep(engine, NOW) for _ in range(4)))
    assert sorted(first) == [False, False, False, True]
    assert await claim_upkeep(engine, NOW + later) is claimed

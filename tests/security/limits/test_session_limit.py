"""Threat T68: the number of a user's sessions is limited, and so is what ending them costs every process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import func, insert, select

from auth.sessions import MAX_SESSIONS
from auth.tables import changes, refresh_tokens, sessions, users
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.support.gateway import Gateway
from tests.support.polling import wait_until


def test_sessions_of_a_user_are_limited(gateway: Gateway) -> None:
    """T68: a login beyond 1000 sessions ends the least recently refreshed; only usable sessions are announced."""
    gateway.add_user("sam")
    engine = open_blocking_engine(gateway.environment["DATABASE_URL"])
    sam = select(users.c.id).where(users.c.name == "sam").scalar_subquery()
    live = select(func.count()).where(sessions.c.user_id == sam, sessions.c.revoked_at.is_(None))
    before = datetime.now(UTC) - timedelta(hours=2)
    ids = [str(uuid4()) for _ in range(MAX_SESSIONS)]
    least_recent = ids[MAX_SESSIONS // 2]
    with engine.execution_options(**WRITING).begin() as connection:
        row = {"scopes": "predict", "created_at": before, "expires_at": before + timedelta(days=30)}
        row["user_id"] = connection.execute(select(sam)).scalar_one()
        connection.execute(insert(sessions), [{"id": each, **row} for each in ids])
        tokens = [{"digest": uuid4().hex, "session_id": each, "created_at": before} for each in ids]
        tokens[ids.index(least_recent)]["created_at"] = before - timedelta(seconds=1)
        connection.execute(insert(refresh_tokens), tokens)
    client = gateway.client("sam")
    ended = select(sessions.c.id).where(sessions.c.user_id == sam, sessions.c.revoked_at.is_not(None))
    with engine.connect() as connection:
        assert connection.execute(live).scalar_one() == MAX_SESSIONS
        assert connection.execute(ended).scalars().all() == [least_recent]
        newest = connection.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one()
    assert client.get("/v1/me").is_success
    assert gateway.run("users", "disable", "sam").returncode == 0
    with engine.connect() as connection:
        assert connection.execute(live).scalar_one() == 0
        # The session of the client, and the user. Older changes may expire and be removed meanwhile.
        announced = select(func.count()).select_from(changes).where(changes.c.seq > newest)
        assert connection.execute(announced).scalar_one() == 2
    engine.dispose()
    wait_until(lambda: client.get("/v1/me").status_code == 401)

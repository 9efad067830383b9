"""Threat T39: the rows that callers add to the database do not accumulate without limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Table, func, select, update

from auth.tables import changes, refresh_tokens, sessions, upkeep
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.support.gateway import Gateway
from tests.support.polling import wait_until

LONG_AGO = datetime.now(UTC) - timedelta(days=2)


def on_database(gateway: Gateway, act: Callable[[Connection], object]) -> None:
    """Run `act` in a transaction on the gateway's database."""
    engine = open_blocking_engine(gateway.environment["DATABASE_URL"])
    with engine.execution_options(**WRITING).begin() as connection:
        act(connection)
    engine.dispose()


def count(gateway: Gateway, table: Table) -> int:
    counts: list[int] = []
    on_database(gateway, lambda at: counts.append(at.execute(select(func.count()).select_from(table)).scalar_one()))
    return counts[0]


def expire_everything(gateway: Gateway) -> None:
    """Make all sessions and changes expire in the past, and the next upkeep due."""

    def expire(connection: Connection) -> None:
        for table in (sessions, changes):
            connection.execute(update(table).values(expires_at=LONG_AGO))
        connection.execute(upkeep.delete())

    on_database(gateway, expire)


def leave_rows_behind(gateway: Gateway) -> None:
    """Log in twice, refresh one login and revoke the other."""
    first, second = (gateway.log_in().json() for _ in range(2))
    refresh = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    assert gateway.post("/auth/token", data=refresh).is_success
    revoke = {"token": second["refresh_token"], "client_id": "atalaya-first-party"}
    assert gateway.post("/auth/revoke", data=revoke).is_success
    assert [count(gateway, table) for table in (sessions, refresh_tokens, changes)] == [2, 3, 1]


def test_a_running_gateway_removes_what_has_expired(new_gateway: Callable[..., Gateway]) -> None:
    """T39: one worker of a gateway removes expired sessions, refresh tokens and changes, and keeps a live login."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2")
    leave_rows_behind(gateway)
    assert gateway.stop() == 0
    expire_everything(gateway)
    gateway.start()
    client = gateway.client()
    wait_until(lambda: count(gateway, refresh_tokens) == 1, message=gateway.log)
    assert client.get("/v1/me").is_success
    wait_until(lambda: gateway.log().count('"expired_rows_removed"') == 1)
    (removed,) = (json.loads(line) for line in gateway.log().splitlines() if '"expired_rows_removed"' in line)
    assert (removed["sessions"], removed["refreshes"], removed["changes"]) == (2, 3, 1)
    assert [count(gateway, table) for table in (sessions, changes)] == [1, 0]


def test_the_command_removes_what_has_expired(new_gateway: Callable[..., Gateway]) -> None:
    """T39: `atalaya upkeep` removes the same rows without a gateway, and reports how many of each kind."""
    gateway = new_gateway(MODEL__URL="stub://")
    leave_rows_behind(gateway)
    assert gateway.stop() == 0
    expire_everything(gateway)
    ended = gateway.run("upkeep", "--yes", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["removed"] == {
        "refresh_tokens": 3,
        "sessions": 2,
        "changes": 1,
        "login_failures": 0,
        "known_addresses": 0,
        "audit_events": 0,
        "ledger_entries": 0,
        "log_files": 0,
    }
    assert "removed" in gateway.run("upkeep", "--yes").stdout
    assert gateway.run("audit", "verify").returncode == 0
